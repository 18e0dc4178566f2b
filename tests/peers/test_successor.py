# SPDX-License-Identifier: GPL-2.0-or-later
"""The root panics: its successor, vnode 1, notices, records it and looks at the root's kernel.

With the root dead nobody answers ssh: what vnode 1 prints is read out of its console ring in the
machine's memory, by QEMU's monitor.  A box of its own, for its root does not come back.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adeos import abi
from adeos.bridge import ConsoleReader

if TYPE_CHECKING:
    RunningBox = Any

pytestmark = [pytest.mark.box, pytest.mark.timeout(2400)]

WAIT_S = 900.0
CONFIG = "/etc/vnode-debug/vnodes.toml"
LATER = [
    "vnode-debug successor --json",
    "vnode-debug status --json",
    "vnode-debug incidents --json",
    "vnode-debug log 0 --level emerg -n 20",
    "vnode-debug attach --no-tasks 0 --batch -ex 'p init_task.comm' -ex bt",
    "vnode-debug drgn -e 'print(prog[\"init_uts_ns\"].name.nodename.string_().decode())' 0",
    "vnode-debug attach --stop 0",
]
"""What vnode 1 does by itself once the root is dead, the output of each between marks."""


@pytest.fixture
def dying(
    box_type: type[RunningBox], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBox]:
    """A box with a Debian in vnode 1; VNODE_DEBUG_BOX_REUSE=1 takes, and ends, what runs."""
    from box import machine

    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("VNODE_DEBUG_BOX_REUSE") != "1" or not machine.running():
            patch.setenv("VNODE_DEBUG_BOX", str(tmp_path_factory.mktemp("dying")))
            machine.up(machine.Options(memory=4 << 30, debian=True, die_with_parent=True), print)
        try:
            yield box_type()
        finally:
            machine.down(print)


def console_of(box: RunningBox, region: int, scratch: Path) -> str:
    """All that is in a vnode's console ring now; nothing in the machine is asked."""
    size = abi.VN_BR_CONSOLE_IN - abi.VN_BR_CONSOLE_OUT
    at = region + abi.VN_OFF_BRIDGE + abi.VN_BR_CONSOLE_OUT
    box.monitor(f'pmemsave {at:#x} {size:#x} "{scratch}"')
    view = memoryview(bytes(abi.VN_BR_CONSOLE_OUT) + scratch.read_bytes())
    return ConsoleReader(view).read().data.decode(errors="replace").replace("\r", "")


def wait_for(box: RunningBox, region: int, scratch: Path, mark: str) -> str:
    end = time.monotonic() + WAIT_S
    while mark not in (text := console_of(box, region, scratch)):
        assert time.monotonic() < end, text[-3000:]
        time.sleep(1)
    return text


def parts(text: str) -> list[str]:
    """The output of each of LATER."""
    return [
        re.search(rf"part-{n}-begins\n(.*?)part-{n}-ends", text, re.DOTALL)[1]  # type: ignore[index]
        for n in range(len(LATER))
    ]


def test_the_root_panics(dying: RunningBox, console_type: type[Any], tmp_path: Path) -> None:
    dying.check(f"sed -i 's/^\\[machine\\]/[machine]\\nsuccessor = \"alpha\"/' {CONFIG}")
    dying.check(["vnode-debug", "up", "--wait", "--timeout", "600"], WAIT_S)
    rows = json.loads(dying.check(["vnode-debug", "status", "--json"], WAIT_S))
    region = next(row["region"] for row in rows if row["name"] == "alpha")
    console = console_type()
    try:
        console.wait("is up after .*#")
        console.run("dmesg -n 1")  # no kernel message amid the output
        words = [
            f"echo 'part-''{n}-begins'; {line} 2>&1; echo 'part-''{n}-ends'"
            for n, line in enumerate(LATER)
        ]
        console.run("rm -f later")
        for line in words:
            quoted = line.replace("'", "'\\''")
            assert console.run(f"echo '{quoted}' >>later")[0] == 0
        console.type("sh later")
        console.wait(r'"event": ?"watching"')
        with pytest.raises(subprocess.TimeoutExpired):  # nobody answers any more
            dying.run("echo c >/proc/sysrq-trigger", 10)
    finally:
        console.kill()
    last = len(LATER) - 1
    told = parts(wait_for(dying, region, tmp_path / "ring", f"part-{last}-ends"))
    events = [json.loads(line) for line in told[0].splitlines() if line.startswith("{")]
    assert [one["event"] for one in events] == ["watching", "panic", "analysed"], told[0]
    assert "sysrq triggered crash" in events[1]["what"]
    assert "sysrq" in events[2]["title"].lower()
    root, alpha, beta, *_ = json.loads(told[1])
    assert (root["state"], "sysrq" in root["reason"]) == ("crashed", True)
    assert (alpha["state"], beta["state"]) == ("running", "running")
    (incident,) = json.loads(told[2])
    assert (incident["vnode"], incident["dump"]["state"]) == (0, "held")
    assert "Kernel panic - not syncing: sysrq triggered crash" in told[3]
    assert '"swapper/0' in told[4] and re.search(r" in panic \(\)", told[4])
    assert told[5].split() == ["root"]  # its host name
    assert "never stopped" in " ".join(told[6].split())

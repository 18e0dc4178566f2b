# SPDX-License-Identifier: GPL-2.0-or-later
"""Vnode 1, a stock kernel with Debian, looks at the running kernel of vnode 2."""

from __future__ import annotations

import base64
import json
import re
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    Peers = Any

# all of it is emulated, Python and gdb as well
pytestmark = [pytest.mark.peers, pytest.mark.timeout(2400)]

GDB = "vnode-debug attach --no-tasks 2"

# What /dev/vnode-peers gives and refuses, and what a mapping shows once its grant has ended.
DEVICE = """
import errno, mmap, os, sys
from adeos import abi
from adeos.errors import AdeosError
from adeos.peers import PeerMachine

def refused(what, number):
    try:
        what()
    except OSError as error:
        print(errno.errorcode[error.errno], end=" ")
        assert error.errno == number
    else:
        raise SystemExit("was not refused")

machine = PeerMachine()
((_, status),) = machine.grants()
binding = machine.query(2)
assert machine.query(1) is None and machine.query(3) is None
info = machine.info()
assert (info.root_pa, info.owner_pid, info.range) == (0, 0, (binding.region,))
assert [cpu.vnode for cpu in machine.cpus()] == [2]

observer = os.open("/dev/vnode-peers", os.O_RDONLY)

def mapped(at, size, fd=observer, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED):
    return lambda: mmap.mmap(fd, size, flags, prot, offset=at)

base, end = binding.region.base, binding.region.end
refused(mapped(end, 4096), errno.EPERM)
refused(mapped(end - 4096, 8192), errno.EPERM)
refused(mapped(base - 4096, 4096), errno.EPERM)
refused(mapped(binding.slot.end, 4096), errno.EPERM)
refused(mapped(1 << 62, 4096), errno.EPERM)
refused(mapped(base, 4096, flags=mmap.MAP_PRIVATE), errno.EINVAL)
both = os.open("/dev/vnode-peers", os.O_RDWR)
refused(mapped(base, 4096, both, mmap.PROT_READ | mmap.PROT_WRITE), errno.EACCES)
try:
    machine.claim()
except AdeosError as error:
    print("no claim", end=" ")
magic = abi.VN_BRIDGE_MAGIC.to_bytes(8, "little")
bridge = machine.view(base + abi.VN_OFF_BRIDGE, abi.VN_BRIDGE_SIZE)
whole = machine.view(base, binding.region.size)
slot = machine.view(binding.slot.base, binding.slot.size)
tables = whole[abi.VN_OFF_ACPI : abi.VN_OFF_ACPI + 8]
ioapic = slot[abi.VN_SLOT_IOAPIC : abi.VN_SLOT_IOAPIC + 4096]

def seen():
    return bytes(bridge[:8]) == magic, bytes(tables) == b"RSD PTR ", any(ioapic)

print("seen", *seen(), end=" ", flush=True)
print("MAPPED", flush=True)
sys.stdin.readline()
print("then", *seen(), machine.query(2), len(machine.grants()), end=" ", flush=True)
refused(mapped(base, 4096), errno.EPERM)
print("DONE")
"""


def put(peers: Peers, name: str, text: str) -> None:
    """A file in vnode 1, in pieces that fit into a line of its console."""
    data = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    peers.console.run(f": >/tmp/{name}.b64")
    for at in range(0, len(data), 600):
        assert peers.console.run(f"echo {data[at : at + 600]} >>/tmp/{name}.b64")[0] == 0
    unpack = "import base64,zlib,sys;"
    unpack += "sys.stdout.buffer.write(zlib.decompress(base64.b64decode(sys.stdin.read())))"
    assert peers.console.run(f'python3 -c "{unpack}" </tmp/{name}.b64 >/tmp/{name}')[0] == 0


@pytest.fixture
def granted(peers: Peers) -> Peers:
    peers.root("grant", "2", "--to", "1")
    return peers


def test_nothing_is_seen_without_a_grant(peers: Peers) -> None:
    status, text = peers.console.run("vnode-debug attach 2")
    assert status == 4
    assert "vnode 2 is not granted to this vnode; granted: none" in " ".join(text.split())
    status, text = peers.console.run("vnode-debug start 2")
    assert status in (4, 6)


def test_the_device_shows_what_was_granted_and_no_more(granted: Peers) -> None:
    put(granted, "device.py", DEVICE)
    console = granted.console
    console.type(console.marked("PYTHONPATH=/opt/vnode-debug python3 /tmp/device.py"))
    text = console.wait(r"MAPPED|Error|was not refused")
    assert "EPERM EPERM EPERM EPERM EPERM EINVAL EACCES no claim seen True True True" in text
    granted.root("revoke", "2", "--from", "1")
    console.type("")
    text = console.wait(r"DONE|Error|was not refused")
    assert "then False False False None 0 EPERM DONE" in text


def test_attach_reads_the_running_kernel(granted: Peers) -> None:
    status, text = granted.console.run(
        f"{GDB} --batch -ex 'p init_task.comm' -ex 'info threads' -ex bt", timeout=600
    )
    assert status == 0, text
    assert '"swapper/0' in text
    assert re.search(r"Thread 2\.1 \"peer2\" \(CPU 0 running", text)
    assert re.search(r"#1 .* in \w+ \(\)", text)


def test_log_of_the_running_kernel(granted: Peers) -> None:
    status, text = granted.console.run("vnode-debug log 2 -n 3")
    assert status == 0
    assert re.search(r'vnode_agent: vnode 2 "peer2", incarnation \d', text)


def test_without_the_grant_it_cannot_be_stopped(granted: Peers) -> None:
    status, text = granted.console.run(f"{GDB} --stop --batch")
    assert status == 1
    assert "may look at it, not stop it" in " ".join(text.split())


def test_it_is_stopped_stepped_and_let_go(peers: Peers) -> None:
    """The paper's sentence: one vnode debugs another's kernel."""
    peers.root("grant", "2", "--to", "1", "--control")
    before = beats(peers)
    commands = [
        "break schedule_hrtimeout_range_clock",
        "continue",
        "bt 3",
        "x/2xb $pc",
        "stepi",
        "x/i $pc",
        "delete",
        "detach",
    ]
    words = " ".join(f"-ex '{command}'" for command in commands)
    status, text = peers.console.run(f"{GDB} --stop --batch {words}", timeout=900)
    assert status == 0, text
    assert re.search(r"Breakpoint 1, 0x\w+ in schedule_hrtimeout_range_clock", text), text
    assert re.search(r"#0 .*schedule_hrtimeout_range_clock", text)
    assert "0xcc" not in text  # breakpoints are taken out of what is read
    assert re.search(r"schedule_hrtimeout_range_clock\+\d+>", text)
    assert json.loads(peers.root("status", "--json"))[2]["state"] == "running"
    assert beats(peers) > before


def test_a_killed_debugger_leaves_nothing_behind(peers: Peers) -> None:
    peers.root("grant", "2", "--to", "1", "--control")
    console = peers.console
    console.type(f"{GDB} --stop -q & sleep 60; kill -9 $! $(pidof gdb); wait")
    console.wait("sleep")
    console.run("true", timeout=900)
    end = time.monotonic() + 120
    while json.loads(peers.root("status", "--json"))[2]["state"] != "running":
        assert time.monotonic() < end
    before = beats(peers)
    assert beats(peers) > before


def beats(peers: Peers) -> int:
    """User beats of vnode 2."""
    status = json.loads(peers.root("status", "--json"))[2]
    assert status["id"] == 2
    return int(status["beats"][0]["user"]["beats"])


def session(peers: Peers) -> Any:
    """gdb at its prompt, having read something."""
    console = peers.console
    console.type(f"{GDB} -q")
    console.wait(r"\(gdb\) ", timeout=600)
    console.type("p init_task.comm")
    console.wait(r'"swapper/0.*\(gdb\) ')
    return console


def told(console: Any, words: str) -> None:
    """No memory is read any more, and continuing says why."""
    console.type("p init_task.comm")
    text = console.wait(r"(Cannot access memory|swapper/0|took the grant|started again).*\(gdb\) ")
    assert "swapper/0" not in text
    console.type("continue")
    text = console.wait(rf"{words}.*\(gdb\) ")
    assert "Program terminated" in text
    console.type("quit")
    console.wait(r"# ")


def test_a_revoked_grant_ends_the_session(granted: Peers) -> None:
    console = session(granted)
    granted.root("revoke", "2", "--from", "1")
    told(console, "took the grant back")


def test_a_restart_ends_the_session(granted: Peers) -> None:
    console = session(granted)
    granted.root("restart", "2", "--wait", "--timeout", "600")
    told(console, "started again")
    status, text = granted.console.run("vnode-debug status --json")
    assert (status, '"incarnation": 2' in text) == (0, True), text

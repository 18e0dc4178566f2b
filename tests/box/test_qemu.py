# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from box import qemu
from box.errors import BoxError

SPEC = qemu.Spec(
    qemu="/usr/bin/qemu-system-x86_64",
    accel="tcg,thread=multi",
    cpus=4,
    memory=2 << 30,
    kernel=Path("/k/vmlinuz"),
    initrd=Path("/k/initrd"),
    append="console=ttyS0 memmap=0x1000$0x2000",
    images=(Path("/c/debian"), Path("/c/python")),
    state=Path("/b/state.img"),
    port=2222,
    tree_socket=Path("/b/tree"),
    monitor_socket=Path("/b/qmp"),
    console_log=Path("/b/console.log"),
    vnodes_log=Path("/b/vnodes.log"),
)


def after(argv: list[str], flag: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == flag]


def test_command_line() -> None:
    argv = qemu.argv(SPEC)
    assert argv[0] == SPEC.qemu
    assert after(argv, "-accel") == ["tcg,thread=multi"]
    assert after(argv, "-append") == [SPEC.append]
    assert after(argv, "-m") == ["2048M"]
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in after(argv, "-netdev")[0]
    assert [("readonly=on" in drive) for drive in after(argv, "-drive")] == [True, True, False]
    assert "-no-reboot" in argv  # a triple fault ends QEMU and is seen as such


def test_commas_in_paths_stay_in_paths() -> None:
    argv = qemu.argv(replace(SPEC, state=Path("/b,readonly=on/state.img")))
    assert "file=/b,,readonly=on/state.img,format=raw" in after(argv, "-drive")[2]


def serve(path: Path, replies: list[bytes]) -> threading.Thread:
    """A monitor that says `replies`, one a request."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def answer() -> None:
        with server, server.accept()[0] as link, link.makefile("rwb") as lines:
            lines.write(b'{"QMP": {}}\n')
            for reply in replies:
                lines.flush()
                json.loads(lines.readline())
                lines.write(reply)
            lines.flush()

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_monitor_skips_events(tmp_path: Path) -> None:
    thread = serve(
        tmp_path / "qmp", [b'{"return": {}}\n', b'{"event": "STOP"}\n{"return": "text"}\n']
    )
    assert qemu.monitor(tmp_path / "qmp", "human-monitor-command", {}) == "text"
    thread.join()


def test_monitor_tells_a_refusal(tmp_path: Path) -> None:
    thread = serve(
        tmp_path / "qmp", [b'{"return": {}}\n', b'{"error": {"desc": "no such thing"}}\n']
    )
    with pytest.raises(BoxError, match="no such thing"):
        qemu.monitor(tmp_path / "qmp", "nonsense", {})
    thread.join()


def test_monitor_without_qemu(tmp_path: Path) -> None:
    with pytest.raises(BoxError, match="monitor"):
        qemu.monitor(tmp_path / "qmp", "quit", {})

# SPDX-License-Identifier: GPL-2.0-or-later
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from debugger import attach as attach_module
from debugger import elf, gdb, symfile
from debugger.attach import attach
from debugger.elf import Section, SectionType
from debugger.errors import MissingTool
from tests.debugger.conftest import PlainKernel
from tests.debugger.test_symfile import IMAGE, KASLR, PERCPU, make_table
from tests.introspect.elfwriter import elf_note

ID = "ab" * 20


def kernel(build_id: str = ID, release: str = "6.1.0-1-test") -> PlainKernel:
    made = PlainKernel(make_table(PERCPU, IMAGE), KASLR, build_id)
    made.release = release
    return made


@pytest.fixture
def vmlinux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gdb, "DEBUG_ROOT", tmp_path / "debug")
    path = tmp_path / "debug" / "boot" / "vmlinux-6.1.0-1-test"
    path.parent.mkdir(parents=True)
    path.write_bytes(symfile.pack(make_table(PERCPU, IMAGE), KASLR, bytes.fromhex(ID)))
    return path


def test_debuginfo_of_this_very_kernel_is_used(vmlinux: Path) -> None:
    assert gdb.build_id_of(vmlinux) == ID
    assert gdb.debuginfo(kernel()) == vmlinux  # type: ignore[arg-type]
    assert gdb.debuginfo(kernel(build_id="cd" * 20)) is None  # type: ignore[arg-type]


def test_the_build_id_is_not_the_first_note(tmp_path: Path) -> None:
    """Of a distribution's vmlinux Xen's notes come before it."""
    notes = elf_note(b"Xen", 6, b"linux\0") + elf_note(b"GNU", 3, bytes.fromhex(ID))
    path = tmp_path / "vmlinux"
    path.write_bytes(elf.assemble([Section(".notes", SectionType.NOTE, data=notes, align=4)]))
    assert gdb.build_id_of(path) == ID


@pytest.mark.parametrize("build_id", ["", "../../etc", "ABAB" * 10, "ab\x00"])
def test_what_the_vnode_says_makes_no_path(vmlinux: Path, build_id: str) -> None:
    assert gdb.debuginfo(kernel(build_id=build_id)) is None  # type: ignore[arg-type]
    hostile = kernel(release="../boot/vmlinux-6.1.0-1-test")
    assert gdb.debuginfo(hostile) is None  # type: ignore[arg-type]


def test_build_ids_of_broken_files(tmp_path: Path) -> None:
    whole = symfile.pack(make_table(PERCPU, IMAGE), KASLR, bytes.fromhex(ID))
    path = tmp_path / "elf"
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        assert gdb.build_id_of(path) in ("", ID)
    assert gdb.build_id_of(tmp_path) == ""
    assert gdb.build_id_of(tmp_path / "absent") == ""


def test_the_command_line() -> None:
    setup = gdb.commands(kernel(), volatile=True)  # type: ignore[arg-type]
    assert f'.vmlinux" -o {KASLR:#x} -s .data..percpu 0 |>' in setup[-2]
    assert "-o 0 |>" in setup[-1]  # the frames of user mode are not moved
    assert "set stack-cache off" in setup
    line = gdb.command_line("gdb", Path("/run/x/rsp"), setup, ["--batch", "-ex", "bt"])
    assert line[-4:] == ["target remote /run/x/rsp", "--batch", "-ex", "bt"]


def test_gdb_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="apt install gdb") as error:
        attach(lambda: pytest.fail("not to be made"))
    assert error.value.exit_code == 5


def test_exit_status_and_signals_are_handed_over() -> None:
    before = signal.getsignal(signal.SIGINT)
    python = sys.executable
    assert gdb.run([python, "-c", "raise SystemExit(7)"]) == 7
    assert gdb.run([python, "-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9
    code = "import signal; assert signal.getsignal(2) is signal.default_int_handler"
    assert gdb.run([python, "-c", code]) == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_gdbs_on_a_terminal_and_its_end_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import os, time; os.kill(os.getppid(), 2); time.sleep(1)"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert gdb.run([sys.executable, "-c", code]) == 0
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    code = "import os, time; os.kill(os.getppid(), 2); time.sleep(60)"
    assert gdb.run([sys.executable, "-c", code]) == 128 + signal.SIGTERM


def test_what_killed_sessions_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path)) if len(str(tmp_path)) <= 60 else None
    monkeypatch.setattr(attach_module, "_PREFIX", f"test-{os.getpid()}-")
    first = attach_module._private_directory()
    assert first.stat().st_mode & 0o777 == 0o700
    alive, dead = first, attach_module._private_directory()
    old = time.time() - 1000
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(alive / "rsp"))
        listener.listen()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(dead / "rsp"))
        for path in (alive, dead):
            os.utime(path, (old, old))
        third = attach_module._private_directory()
        assert alive.exists()
        assert not dead.exists()
    for path in (alive, third):
        for child in path.iterdir():
            child.unlink()
        path.rmdir()

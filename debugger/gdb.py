# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts gdb on a server's socket, with symbols, and hands it the terminal.

gdb reads its user's own .gdbinit, but none in the current directory.  Debuginfo
that is installed for exactly this kernel (same build id) is used; otherwise the
symbol file made from the kernel itself (symfile.py).
"""

import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from debugger import modulefile, symfile
from debugger.errors import MissingTool
from introspect.elfcore import build_id
from introspect.errors import IntrospectError
from introspect.kernel import Kernel

SCRIPT = Path(__file__).with_name("gdb_script.py")
DEBUG_ROOT = Path("/usr/lib/debug")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")
_SHT_NOTE = 7
_MAX_NOTE = 4096

# Before the user's .gdbinit, so that it has the last word.
_EARLY = (
    "set auto-load local-gdbinit off",
    "set confirm off",
    "set pagination off",
    "set osabi none",
    "set remotetimeout 30",
)
# A watched kernel runs on: what gdb read a moment ago may have changed.
_WATCHING = ("set stack-cache off", "set code-cache off")


def find(name: str = "gdb") -> str:
    """The path of gdb; MissingTool when it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise MissingTool(f"{name} is not installed: apt install gdb")
    return path


def debuginfo(kernel: Kernel) -> Path | None:
    """An installed vmlinux with debuginfo and this kernel's build id."""
    wanted, release = kernel.build_id, kernel.release  # the vnode's words: no path before a check
    if not symfile.BUILD_ID.fullmatch(wanted):
        return None
    paths = [DEBUG_ROOT / ".build-id" / wanted[:2] / f"{wanted[2:]}.debug"]
    if _RELEASE.fullmatch(release):
        paths += [
            DEBUG_ROOT / "boot" / f"vmlinux-{release}",
            DEBUG_ROOT / "lib/modules" / release / "vmlinux",
        ]
    return next((path for path in paths if build_id_of(path) == wanted), None)


def build_id_of(path: Path) -> str:
    """The GNU build id of an ELF file in hex, "" when it is no such file or has none."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if head[:6] != b"\x7fELF\x02\x01":
                return ""
            (offset,) = struct.unpack_from("<Q", head, 40)
            size, count = struct.unpack_from("<HH", head, 58)
            file.seek(offset)
            table = file.read(size * count)
            for at in range(0, len(table) - 63, max(size, 64)):
                (kind,) = struct.unpack_from("<I", table, at + 4)
                place, length = struct.unpack_from("<QQ", table, at + 24)
                if kind == _SHT_NOTE and length < _MAX_NOTE:
                    file.seek(place)
                    found = build_id(file.read(length))  # a kernel has Xen's notes before it
                    if found:
                        return found
    except (OSError, struct.error, IntrospectError):
        pass
    return ""


def commands(
    kernel: Kernel, *, volatile: bool, progress: Callable[[str], None] = lambda _line: None
) -> list[str]:
    """The gdb commands that load symbols and gdb_script.py; SymbolFileError when there are none."""
    path = _quoted(debuginfo(kernel) or symfile.build(kernel, progress))
    # Not symbol-file: it would move the per-CPU section, which lies at 0 whatever KASLR does.
    percpu = f"-s {symfile.PERCPU} 0" if kernel.symbols.table.absolute else ""
    return [
        *(_WATCHING if volatile else ()),
        f"source {SCRIPT}",
        f"exec-file {path}",
        _quietly(f"add-symbol-file {path} -o {kernel.kaslr_offset:#x} {percpu}"),
        _quietly(f"add-symbol-file {_quoted(modulefile.user_frames())} -o 0"),
        *(
            _quietly(f"add-symbol-file {_quoted(file)} {_places(starts)}")
            for file, starts in modulefile.build(kernel)
        ),
    ]


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _places(starts: Sequence[int]) -> str:
    """Where the sections of a module's file lie: .text first, without its name."""
    rest = (f"-s {modulefile.section_name(n)} {at:#x}" for n, at in enumerate(starts) if n)
    return " ".join([f"{starts[0]:#x}", *rest])


def _quietly(command: str) -> str:
    """Without the lines it prints, three a file; errors and warnings are seen."""
    return f"pipe -d |> {command} |> cat >/dev/null"


def several(setups: Mapping[int, Sequence[str]], socket: Path) -> list[str]:
    """The commands that attach to several vnodes by number, each in an inferior of its own."""
    commands: list[str] = []
    for inferior, (number, setup) in enumerate(setups.items(), 1):
        if inferior == 1:
            connect = [f"target extended-remote {socket}"]
        else:
            commands += [_quietly("add-inferior"), _quietly(f"inferior {inferior}")]
            connect = []
        commands += [*setup, *connect, f"attach {number}"]
    return [*commands, _quietly("inferior 1")]


def command_line(
    program: str, socket: Path | None, setup: Sequence[str], args: Sequence[str]
) -> list[str]:
    """gdb's command line: preferences, symbols, connection, then the user's arguments."""
    line = [program, "-q"]
    connect = [f"target remote {socket}"] if socket is not None else []
    for command in _EARLY:
        line += ["-iex", command]
    for command in (*setup, *connect):
        line += ["-ex", command]
    return [*line, *args]


def run(line: Sequence[str]) -> int:
    """Run gdb in the foreground; its exit status, or 128 + the signal that ended it."""
    process = subprocess.Popen(line)
    with _signals_for_gdb(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _signals_for_gdb(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A terminal's Ctrl-C and Ctrl-\\ are gdb's; without one they mean that nobody is there."""
    signals = (signal.SIGINT, signal.SIGQUIT)

    def handle(_number: int, _frame: object) -> None:
        if not sys.stdin.isatty():
            process.terminate()

    before = [signal.signal(number, handle) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)

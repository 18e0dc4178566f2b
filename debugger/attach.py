# SPDX-License-Identifier: GPL-2.0-or-later
"""`attach`: a server for one gdb, and that gdb, in the foreground.

The server is a thread of this process behind a socket in a directory of its
own; both are removed as soon as gdb has connected, so that a kill -9 of either
side leaves nothing behind.  What one killed before that left, the next attach
removes.
"""

import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from debugger import gdb
from debugger.errors import ControlRefused
from debugger.server import Server
from debugger.target import KernelTarget, Liveness

_PREFIX = "vnode-debug-gdb-"
_STALE_SECONDS = 60
_END_SECONDS = 2.0


def attach(
    factories: Sequence[Callable[[], KernelTarget]],
    gdb_args: Sequence[str] = (),
    *,
    stop: bool = False,
) -> int:
    """Run gdb on one or several targets until the user leaves it; gdb's exit status.

    `gdb_args` go to gdb as they are (`--batch`, `-ex`, ...).  With `stop` the CPUs are
    stopped first.  MissingTool when gdb is not installed, SymbolFileError when a kernel has
    no usable symbols, ControlRefused when one cannot be stopped, and what a factory raises.
    """
    path = gdb.find()
    with serving(factories, stop=stop) as (setups, place):
        if len(setups) == 1:
            (setup,) = setups.values()
            line = gdb.command_line(path, place, setup, gdb_args)
        else:
            line = gdb.command_line(path, None, gdb.several(setups, place), gdb_args)
        return gdb.run(line)


@contextmanager
def serving(
    factories: Sequence[Callable[[], KernelTarget]], *, stop: bool = False
) -> Iterator[tuple[dict[int, list[str]], Path]]:
    """(gdb's commands to load symbols by process id, a server's socket for one gdb) in a block."""
    targets = {target.identity.number: target for target in [make() for make in factories]}
    setups = {
        number: gdb.commands(target.kernel, volatile=target.cpus.volatile, progress=say)
        for number, target in targets.items()
    }
    single = next(iter(targets.values())) if len(targets) == 1 else None
    catalog = {number: _ready(target) for number, target in targets.items()}
    with socket_directory() as directory:
        place = directory / "rsp"
        server = Server(_ready(single), place) if single else Server(None, place, catalog)

        def serve() -> None:
            server.serve_one(connected=lambda: shutil.rmtree(directory, ignore_errors=True))

        thread = threading.Thread(target=serve, daemon=True)
        try:
            if stop:
                for target in targets.values():
                    _halt(target)
            thread.start()
            yield setups, place
        finally:
            for target in targets.values():
                if target.pilot is not None:
                    target.pilot.give_back()
            server.close()
            if thread.ident is not None:
                thread.join(_END_SECONDS)  # gdb is gone: it has no one left to serve
            for target in targets.values():
                target.close()


@contextmanager
def socket_directory() -> Iterator[Path]:
    """A directory for a socket, removed at the end of the block."""
    directory = _private_directory()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ready(target: KernelTarget) -> Callable[[], KernelTarget]:
    return lambda: target


def _halt(target: KernelTarget) -> None:
    if target.pilot is None:
        raise ControlRefused(f"{target.identity.name} cannot be stopped: it can only be watched")
    if target.liveness is Liveness.RUNNING:  # the dead have stopped
        target.pilot.halt()
        target.refresh()


def say(line: str) -> None:
    """A line for the user."""
    print(f"vnode-debug: {line}", file=sys.stderr, flush=True)


def _private_directory() -> Path:
    """A fresh directory, 0700, with a short path: a socket's has at most 107 bytes."""
    place = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    if not os.access(place, os.W_OK) or len(str(place)) > 60 or " " in str(place):
        place = Path("/tmp")
    for old in place.glob(f"{_PREFIX}*"):
        if _is_stale(old):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))


def _is_stale(directory: Path) -> bool:
    """Whether the server that made a directory is dead."""
    try:
        status = directory.lstat()
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _STALE_SECONDS:
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(directory / "rsp"))
    except OSError:
        return True
    return False

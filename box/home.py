# SPDX-License-Identifier: GPL-2.0-or-later
"""The box's directory: the record of a running box, its lock, its sockets.

$VNODE_DEBUG_BOX names it, else it is build/box of the checkout.  It also keeps keys, state disk and
logs.  The record, box.json, names QEMU by pid and start time, so a record left by a killed run is
known for what it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from box import cache, process
from box.errors import BoxError, HostLacks, Refused

SOCKET_PATH_MAX = 80  # sun_path holds 107 bytes; ssh adds a suffix of 17 while it connects


class State(Enum):
    """What a box directory holds."""

    DOWN = "down"  # no box
    BOOTING = "booting"  # QEMU runs, the root vnode is not ready
    RUNNING = "running"  # the root vnode takes commands
    DEAD = "dead"  # a record, but its QEMU has ended


@dataclass(frozen=True)
class Record:
    """The content of box.json."""

    pid: int
    start: int
    port: int
    memory: int
    cpus: int
    accel: str
    kernel: str
    started: float  # time.time()
    ready: bool = False

    @property
    def qemu(self) -> process.Identity:
        return process.Identity(self.pid, self.start)


@dataclass(frozen=True)
class Status:
    """A box as seen from outside."""

    state: State
    directory: Path
    record: Record | None

    @property
    def console_log(self) -> Path:
        return self.directory / "console.log"


def directory() -> Path:
    """Where the box of this checkout lives."""
    named = os.environ.get("VNODE_DEBUG_BOX")
    return Path(named).absolute() if named else cache.REPOSITORY / "build" / "box"


def status() -> Status:
    """What runs; reads files only."""
    record = read_record()
    if record is None:
        return Status(State.DOWN, directory(), None)
    if not process.alive(record.qemu):
        return Status(State.DEAD, directory(), record)
    return Status(State.RUNNING if record.ready else State.BOOTING, directory(), record)


@contextmanager
def locked() -> Iterator[None]:
    """Holds the box directory for up and down."""
    home = directory()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another command is at this box ({home}): wait for it") from None
        yield


def read_record() -> Record | None:
    path = directory() / "box.json"
    try:
        return Record(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BoxError(f"{path} is damaged ({error}): remove it") from error


def write_record(record: Record) -> None:
    cache.write_atomically(directory() / "box.json", json.dumps(asdict(record)).encode())


def sockets() -> Path:
    """A directory whose path is short enough for Unix sockets, private to the user."""
    home = directory()
    if len(os.fsencode(home)) <= SOCKET_PATH_MAX:
        return home
    short = Path(tempfile.gettempdir()) / f"vnode-debug-{os.getuid()}-{cache.digest(str(home))}"
    short.mkdir(mode=0o700, exist_ok=True)
    facts = short.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o77 or short.is_symlink():
        raise HostLacks(f"{short} belongs to somebody else: remove it")
    return short


def clean() -> None:
    """Removes the traces of a box that has ended; logs, keys and the state disk stay."""
    for name in ("ssh", "qmp", "tree", "tree.pid"):
        (sockets() / name).unlink(missing_ok=True)
    (directory() / "initrd").unlink(missing_ok=True)
    (directory() / "box.json").unlink(missing_ok=True)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What one call of vnode-debug works with: the machine, the daemon, the incident store.

Each is opened when a verb first asks for it, so that a verb pays only for what
it uses.  Tests hand in a machine factory and paths of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import DaemonDown, MachineMissing

if TYPE_CHECKING:
    from adeos.machine import Machine
    from cli.remote import Target
    from crashdump.store import IncidentStore
    from watchdog.client import Client

DEVICE = Path("/dev/kmb")
PEERS = Path("/dev/vnode-peers")
"""What a vnode has instead: the vnodes that the root granted to it."""
NO_MACHINE = (
    f"no {DEVICE} here and no box runs; start one with 'vnode-debug box up', name a machine with "
    "--host USER@MACHINE, or on a root vnode run 'vnode-debug up'"
)

MachineFactory = Callable[[], "Machine"]


def in_vnode() -> bool:
    """Whether this is a vnode, which sees what it was granted and has no daemon."""
    return not DEVICE.exists() and PEERS.exists()


def lends() -> bool:
    """Whether this machine still lacks what an `up` took from it."""
    from watchdog import paths

    return paths.loan_record().exists()


def open_machine() -> Machine:
    """/dev/kmb as an observer; in a vnode, what was granted to it."""
    from adeos.kmb import KmbMachine
    from adeos.peers import PeerMachine

    return PeerMachine() if in_vnode() else KmbMachine()


def find_box() -> Target | None:
    """The running box, or None."""
    from cli.remote import running_box

    return running_box()


class Session:
    """The state of one command line; also click's context object."""

    def __init__(
        self,
        machine_factory: MachineFactory | None = None,
        box: Callable[[], Target | None] = find_box,
    ) -> None:
        self.machine_factory = machine_factory
        self.box = box
        self.host: Target | None = None
        self.quiet = False
        self.json = False
        self._machine: Machine | None = None
        self._store: IncidentStore | None = None

    def elsewhere(self, *, required: bool) -> Target | None:
        """The machine to go to, None to work here.

        Raises MachineMissing when there is none and one is required.
        """
        if self.host is not None:
            return self.host
        if self.machine_factory is not None or DEVICE.exists() or PEERS.exists() or lends():
            return None
        box = self.box()
        if box is None and required:
            raise MachineMissing(NO_MACHINE)
        return box

    def flags(self) -> list[str]:
        """The global options to hand on to another machine."""
        return ["--quiet"] if self.quiet else []

    def machine(self) -> Machine:
        """The machine, opened for observing at the first call."""
        if self._machine is None:
            self._machine = (self.machine_factory or open_machine)()
        return self._machine

    def close_machine(self) -> None:
        """An open device keeps kmb.ko."""
        if self._machine is not None:
            self._machine.close()
            self._machine = None

    def open_writable(self) -> Machine:
        """The machine once more, for run control: closing it ends that."""
        if self.machine_factory is not None:
            return self.machine_factory()
        from adeos.kmb import KmbMachine
        from adeos.peers import PeerMachine

        return PeerMachine(writable=True) if in_vnode() else KmbMachine(writable=True)

    def client(self) -> Client:
        """The way to the daemon."""
        from watchdog import paths
        from watchdog.client import Client

        if self.machine_factory is None and in_vnode():
            raise DaemonDown("this is a vnode: only the root vnode's daemon can do that")
        return Client(paths.control_socket())

    def store(self) -> IncidentStore:
        """The incident store of this machine, for reading; empty where there is none."""
        if self._store is None:
            self._store = self.open_store()
        return self._store

    def open_store(self) -> IncidentStore:
        """The store once more: one that was opened before there was any stays empty."""
        from crashdump.store import IncidentStore
        from watchdog import paths

        return IncidentStore(paths.state_dir(), read_only=True)

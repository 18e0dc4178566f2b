# SPDX-License-Identifier: GPL-2.0-or-later
"""The vnodes that the root granted to this one: /dev/vnode-peers of vnode_agent.ko.

Where the grant says so they can be controlled too: the device asks the root, which does it.

To its readers it is a machine like /dev/kmb, with other vnodes' memory taken out of it, and without
a root bridge unless this is the successor: what the root says of the vnodes comes with the grants.
"""

from typing import Final, Protocol, runtime_checkable

from adeos import abi
from adeos.abi import KmbFire
from adeos.kmb import KmbMachine
from adeos.machine import Event, Machine

DEVICE: Final = "/dev/vnode-peers"

Grant = tuple[abi.Grant, abi.Status]


@runtime_checkable
class Granted(Protocol):
    """A machine of which only what was granted is seen."""

    def grants(self) -> tuple[Grant, ...]:
        """Each vnode granted now, with what the root says of it."""
        ...


def sees_root(machine: Machine) -> bool:
    """Whether this is the vnode that succeeds the root: it was granted the root's own memory."""
    return isinstance(machine, Granted) and machine.info().root_pa != 0


class PeerMachine(KmbMachine):
    """The granted vnodes; an observer, and `writable` a debugger of those granted with control.

    What was mapped shows zeros once the grant ends or the vnode is started again: ask query()
    after a read.
    """

    def __init__(self, *, writable: bool = False) -> None:
        super().__init__(DEVICE, writable=writable)

    def fileno(self) -> int:
        """-1: the portals ring at the root, not here."""
        return -1

    def events(self) -> list[Event]:
        """[], see fileno()."""
        return []

    def fire(self, vnode: int) -> KmbFire | None:
        """None: what is armed is the root's own affair."""
        return None

    def grants(self) -> tuple[Grant, ...]:
        buffer = bytearray(abi.GRANTS.size)
        self._ioctl(abi.VNODE_GRANTS, buffer, self._path)
        table = abi.GRANTS.unpack(buffer)
        return tuple(zip(table.grant, table.status, strict=True))[: table.n]

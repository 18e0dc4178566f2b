# SPDX-License-Identifier: GPL-2.0-or-later
"""The error tree of adeos.

AdeosError
  MachineMissing   no /dev/kmb, or it lacks what was asked for
    PlacementError   memory or CPUs that are absent, taken or do not fit together
  OwnerError       this process does not own the machine, or another one does
  HeldError        a debugger controls the vnode, or no longer does
  ParkedError      an interrupt for a CPU that is parked
  FenceError       a CPU did not confirm that it is parked
  PoolExhausted    no room left in the memory given to vnodes
  ImageError       a kernel, initrd or command line that cannot be booted
    WarmImageError   a frozen vnode's image that is damaged, or of another vnode
  FreezeError      a vnode that cannot be frozen
  BridgeError      a bridge holds what no agent writes

The text of each is one line: what, where, and what to do (the hint).
"""


class AdeosError(Exception):
    """Base of the tree; `exit_code` is the process exit code it leads to (docs/commands.md)."""

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}; {hint}" if hint else what)
        self.what = what
        self.hint = hint


class MachineMissing(AdeosError):
    """The machine lacks something: the device, a module, CPUs, memory."""

    exit_code = 5


class PlacementError(MachineMissing):
    """Memory or CPUs that are not given to vnodes, taken, misaligned or too small."""


class OwnerError(AdeosError):
    """The device has another owner, or this process is only an observer."""

    exit_code = 6


class HeldError(AdeosError):
    """Control of a vnode is had by another process, or not had any more."""

    exit_code = 6


class ParkedError(AdeosError):
    """An NMI or interrupt for a CPU that does not run: it would be lost or do harm."""


class FenceError(AdeosError):
    """A CPU did not confirm its parking in time: its memory must not be touched."""

    exit_code = 7


class PoolExhausted(AdeosError):
    """No free region or low slot is large enough."""

    exit_code = 8


class ImageError(AdeosError):
    """A kernel, initrd or command line that cannot be booted as a vnode."""

    exit_code = 3


class WarmImageError(ImageError):
    """The image of a frozen vnode is damaged, or does not belong where it is to be used."""

    exit_code = 1


class FreezeError(AdeosError):
    """A vnode refused to freeze, or did not answer; it runs on."""

    exit_code = 6


class BridgeError(AdeosError):
    """A bridge holds a value that its writer's program would never write."""

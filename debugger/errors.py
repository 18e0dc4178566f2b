# SPDX-License-Identifier: GPL-2.0-or-later
"""The error tree of the debugger.

    DebuggerError (1)
    +-- TargetError (1)         what is debugged cannot do or give this
    |   +-- AddressError (1)    no such memory: carries address and length
    |   +-- TargetGone (4)      the kernel this session looked at is no more
    |   +-- ControlRefused (6)  its CPUs cannot be had: another debugger, no agent
    |   +-- ControlLost (6)     they were had, and are not any more
    +-- CommandError (1)        a monitor command that is none, or with wrong words
    +-- WrongTarget (2)         what names the target is malformed
    +-- NothingThere (4)        no vnode, file or kernel to attach to
    +-- GdbFailed (1)           gdb ended, or could not connect
    +-- GdbTimedOut (7)         gdb took too long
    +-- MissingTool (5)         gdb is not installed
    +-- SocketInUse (6)         another server listens there
    +-- SymbolFileError (1)     the kernel's symbols make no symbol file

Each text is one line that says what, where and what to do; exit_code is what
`vnode-debug` exits with.
"""


class DebuggerError(Exception):
    """Base of all errors raised by this package."""

    exit_code = 1


class TargetError(DebuggerError):
    """The target cannot do or give what was asked."""


class AddressError(TargetError):
    """No memory of the vnode at an address.

    `address` and `size` are in bytes, in the address space that was asked.
    """

    def __init__(self, address: int, size: int, why: str) -> None:
        super().__init__(f"cannot access {size} bytes at {address:#x}: {why}")
        self.address = address
        self.size = size


class TargetGone(TargetError):
    """The kernel that was attached to has been replaced or its memory given back."""

    exit_code = 4


class ControlRefused(TargetError):
    """Another debugger controls the vnode, or nothing in it obeys."""

    exit_code = 6


class ControlLost(TargetError):
    """The lease ended, or the vnode was parked by the root."""

    exit_code = 6


class CommandError(DebuggerError):
    """There is no such monitor command, or not with these words."""


class WrongTarget(DebuggerError):
    """The words that name what is to be debugged are malformed."""

    exit_code = 2


class NothingThere(DebuggerError):
    """There is no vnode or file of that name, or no kernel in it."""

    exit_code = 4


class GdbFailed(DebuggerError):
    """gdb ended before its work was done, or could not connect."""


class GdbTimedOut(DebuggerError):
    """gdb took longer than it was given."""

    exit_code = 7


class MissingTool(DebuggerError):
    """A program this package starts is not installed."""

    exit_code = 5


class SocketInUse(DebuggerError):
    """Another server listens at the socket path."""

    exit_code = 6


class SymbolFileError(DebuggerError):
    """A kernel's symbol table cannot be turned into a symbol file."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The error tree of introspect.

IntrospectError              anything this package raises on purpose
 +-- MemoryFault             an address is not in memory, or not mapped
 +-- NotFound                no such kernel, symbol, type, member or task
 +-- Corrupt                 a structure contradicts itself
 +-- BadImage                a file is not a memory image that can be read
 +-- ToolMissing             a library or program is needed to go on

Each has an `exit_code` (docs/commands.md) and a one-line text.
"""

from __future__ import annotations


class IntrospectError(Exception):
    """Base of the tree."""

    exit_code = 1


class MemoryFault(IntrospectError):
    """`size` bytes at `address` cannot be read; `virtual` tells which kind of address."""

    def __init__(self, address: int, size: int, *, virtual: bool = False, why: str = "") -> None:
        self.address = address
        self.size = size
        self.virtual = virtual
        kind = "virtual" if virtual else "physical"
        reason = why or ("not mapped" if virtual else "not in this memory image")
        super().__init__(f"cannot read {size} bytes at {kind} address {address:#x}: {reason}")


class NotFound(IntrospectError):
    """What was asked for is not there."""

    exit_code = 4


class Corrupt(IntrospectError):
    """`what` at `where` contradicts itself or is out of bounds."""

    def __init__(self, what: str, where: str | int) -> None:
        self.what = what
        self.where = f"{where:#x}" if isinstance(where, int) else where
        super().__init__(f"{what} ({self.where})")


class BadImage(IntrospectError):
    """The file cannot serve as a memory or kernel image."""


class ToolMissing(IntrospectError):
    """A library or program is missing; the text says which package has it."""

    exit_code = 5

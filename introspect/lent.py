# SPDX-License-Identifier: GPL-2.0-or-later
"""Live memory that its owner may take back at any moment, and which then reads as zeros."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from introspect.errors import MemoryFault
from introspect.memory import Buffer, BufferMemory


class LentMemory(BufferMemory):
    """Segments like BufferMemory's; `valid` is asked after each read: False makes it a MemoryFault.

    Limit: a view taken before stays and shows zeros.
    """

    def __init__(self, segments: Sequence[tuple[int, Buffer]], valid: Callable[[], bool]) -> None:
        super().__init__(segments)
        self._valid = valid

    def read(self, pa: int, size: int) -> bytes:
        data = super().read(pa, size)
        if not self._valid():
            raise MemoryFault(pa, size)
        return data

    def view(self, pa: int, size: int) -> memoryview | None:
        return super().view(pa, size) if self._valid() else None

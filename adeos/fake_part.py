# SPDX-License-Identifier: GPL-2.0-or-later
"""What each part of a FakeMachine calls of the whole."""

from __future__ import annotations


class FakePart:
    """FakeMachine has these."""

    def _owned(self) -> None:
        raise NotImplementedError

    def raw(self, base: int, size: int) -> memoryview:
        """Memory, whoever owns the machine."""
        raise NotImplementedError

    def tsc(self) -> int:
        """Its clock."""
        raise NotImplementedError

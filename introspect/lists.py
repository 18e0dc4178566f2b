# SPDX-License-Identifier: GPL-2.0-or-later
"""Walks of the kernel's lists, in memory that may be torn, cyclic or live.

Each link is checked (next->prev is where we came from), the number of steps
is bounded.  In a live kernel a broken link is read again before it is
believed; a walk that stays broken raises Corrupt, so that the caller can say
that what it has is not all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from introspect.errors import Corrupt

if TYPE_CHECKING:
    from introspect.kernel import Kernel

RETRIES = 8
_LIST_HEAD = struct.Struct("<QQ")  # next, prev


def walk(kernel: Kernel, head: int, limit: int) -> Iterator[int]:
    """Addresses of the struct list_head nodes from `head` (not itself), at most `limit`."""
    at = head
    for _ in range(limit):
        node = _step(kernel, at)
        if node == head:
            return
        yield node
        at = node
    raise Corrupt(f"a list does not end after {limit} entries", head)


def _step(kernel: Kernel, at: int) -> int:
    """The node after `at`; Corrupt when it does not point back."""
    for _ in range(RETRIES if kernel.live else 1):
        node = kernel.u64(at)
        if _LIST_HEAD.unpack(kernel.read(node, 16))[1] == at:
            return node
    raise Corrupt("a list's next entry does not point back", at)

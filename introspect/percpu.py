# SPDX-License-Identifier: GPL-2.0-or-later
"""Per-CPU variables and the masks of CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from introspect.errors import IntrospectError

if TYPE_CHECKING:
    from introspect.kernel import Kernel

MAX_CPUS = 8192
MASK = (1 << 64) - 1


def cpus(kernel: Kernel, mask: str = "possible") -> list[int]:
    """The CPUs in __cpu_<mask>_mask: possible, present, online or active."""
    at = kernel.symbols.address(f"__cpu_{mask}_mask")
    count = min(max(kernel.u32(kernel.symbols.address("nr_cpu_ids")), 1), MAX_CPUS)
    bits = int.from_bytes(kernel.read(at, (count + 63) // 64 * 8), "little")
    return [cpu for cpu in range(count) if bits >> cpu & 1]


def offset(kernel: Kernel, cpu: int) -> int:
    """What is added to a per-CPU symbol's address for `cpu`."""
    if not 0 <= cpu < MAX_CPUS:
        raise IntrospectError(f"no CPU {cpu}")
    return kernel.u64(kernel.symbols.address("__per_cpu_offset") + 8 * cpu)


def address(kernel: Kernel, name: str, cpu: int) -> int:
    """Where `cpu`'s copy of the per-CPU variable `name` lies."""
    return (kernel.symbols.address(name) + offset(kernel, cpu)) & MASK

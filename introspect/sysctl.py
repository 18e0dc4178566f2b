# SPDX-License-Identifier: GPL-2.0-or-later
"""Well-known sysctls, read from the variables behind them.

Limits: a table of names, not the kernel's own tree; what a kernel does not have is left out.
Source: kernel/sysctl.c, kernel/panic.c, kernel/hung_task.c, mm/vmscan.c (6.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from introspect.errors import IntrospectError

if TYPE_CHECKING:
    from introspect.kernel import Kernel

VARIABLES = (
    ("kernel.hung_task_panic", "sysctl_hung_task_panic"),
    ("kernel.hung_task_timeout_secs", "sysctl_hung_task_timeout_secs"),
    ("kernel.panic", "panic_timeout"),
    ("kernel.panic_on_oops", "panic_on_oops"),
    ("kernel.panic_on_warn", "panic_on_warn"),
    ("kernel.pid_max", "pid_max"),
    ("kernel.printk", "console_printk"),
    ("kernel.sched_rt_runtime_us", "sysctl_sched_rt_runtime"),
    ("kernel.softlockup_panic", "softlockup_panic"),
    ("kernel.sysrq", "sysrq_enabled"),
    ("kernel.watchdog_thresh", "watchdog_thresh"),
    ("vm.dirty_ratio", "vm_dirty_ratio"),
    ("vm.min_free_kbytes", "min_free_kbytes"),
    ("vm.overcommit_memory", "sysctl_overcommit_memory"),
    ("vm.panic_on_oom", "sysctl_panic_on_oom"),
    ("vm.swappiness", "vm_swappiness"),
)
"""All of them are an int, or begin with the one that is shown."""


def read_sysctls(kernel: Kernel) -> dict[str, int]:
    """The value of each sysctl of VARIABLES that this kernel has."""
    found = {}
    for name, variable in VARIABLES:
        try:
            raw = kernel.read(kernel.symbols.address(variable), 4)
        except IntrospectError:
            continue
        found[name] = int.from_bytes(raw, "little", signed=True)
    return found

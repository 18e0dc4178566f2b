# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults of the campaign as data: how each is done, and what the root must make of it.

Names are LKDTM's (drivers/misc/lkdtm of Linux 6.1) where it has the same fault.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class End(StrEnum):
    """What becomes of the vnode."""

    RESTARTED = "restarted"
    HALTED = "halted"
    """An orderly end: no crash, and no successor by policy."""
    STAYS = "stays"
    """No failure: it runs on, and nobody may take it for dead."""
    EITHER = "either"
    """The damage may show or not: runs on, or is restarted."""


class How(StrEnum):
    """Who does it."""

    SHELL = "shell"
    """A line typed into the vnode's console."""
    SCRIBBLE = "scribble"
    """The root overwrites the vnode's half of its bridge, as a stray pointer in the vnode would."""
    BOOT = "boot"
    """Its successor fails while it boots."""
    NO_INIT = "no-init"
    """Its successor's initrd is overwritten before it is unpacked."""
    SEVERAL = "several"
    """`victims` vnodes fail; with `stagger` each while the one before is being captured."""


class Fault(NamedTuple):
    """One way to fail.

    `reasons`: those an incident may have; `title`: a regular expression for the whole title, ""
    for one that is not foreseen; `culprit`: the function, "" for any.  `line` is for a shell;
    `limit` is how long, in seconds, the fault may take to show.
    """

    name: str
    group: str
    reasons: tuple[str, ...]
    title: str = ""
    culprit: str = ""
    line: str = ""
    end: End = End.RESTARTED
    how: How = How.SHELL
    victims: int = 1
    stagger: bool = False
    repeats: int = 0
    limit: float = 30.0

    @property
    def keys(self) -> str:
        """What is typed."""
        return self.line or f"echo {self.name} >/dev/vnode_faults"


DIED = ("oops", "panic")
HUNG = ("irqhang", "softlockup", "hang")
NULL = "BUG: unable to handle kernel NULL pointer dereference in "
PAGING = "BUG: unable to handle kernel paging request in "
EXECUTES = r"BUG: (kernel tried to execute data|unable to handle kernel .*) in .*"


def _oops(name: str, group: str, title: str, culprit: str = "") -> Fault:
    culprit = culprit or f"fault_{name}"
    return Fault(name, group, DIED, title.format(fn=culprit), culprit)


def _warns(name: str, title: str = "WARNING in {fn}", culprit: str = "") -> Fault:
    culprit = culprit or f"fault_{name}"
    line = f"echo 1 >/proc/sys/kernel/panic_on_warn; echo {name} >/dev/vnode_faults"
    return Fault(name, "warning", DIED, title.format(fn=culprit), culprit, line)


def _hang(name: str, reasons: tuple[str, ...], title: str = "", culprit: str = "") -> Fault:
    return Fault(name, "hang", reasons, title, culprit)


def _point(name: str, title: str, culprit: str = "", line: str = "") -> Fault:
    return Fault(name, "crash point", DIED, title, culprit, line)


_HUNG_TASK = (
    "cd /proc/sys/kernel; echo 1 >hung_task_panic; echo 1 >hung_task_timeout_secs; cd /;"
    " echo {name} >/dev/vnode_faults"
)
_RCU = (
    "cd /proc/sys/kernel; echo 1 >panic_on_rcu_stall; cd /;"
    " echo 3 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout;"
    " echo RCU_STALL >/dev/vnode_faults"
)
_OOM = "echo 1 >/proc/sys/vm/panic_on_oom; echo OOM >/dev/vnode_faults"
_PANIC = "echo PANIC >/dev/vnode_faults"
_DUMPTEST = "kernel panic: dumptest"

CATALOGUE: tuple[Fault, ...] = (
    Fault("PANIC", "panic", ("panic",), _DUMPTEST, "fault_PANIC"),
    Fault("OOM", "panic", ("panic",), "kernel panic: Out of memory.*", "", _OOM),
    Fault("SYSRQ_C", "panic", DIED, ".*sysrq.*", "", "echo c >/proc/sysrq-trigger"),
    _oops("BUG", "exception", "kernel BUG in {fn}"),
    _oops("EXCEPTION", "exception", NULL + "{fn}"),
    _oops("ACCESS_NULL", "exception", NULL + "{fn}"),
    _oops("DIVIDE_ERROR", "exception", "divide error in {fn}"),
    _oops("INVALID_OPCODE", "exception", "invalid opcode in {fn}"),
    _oops("DOUBLE_FAULT", "exception", r"(PANIC: double fault|BUG: stack guard page.*) in {fn}"),
    _oops("WILD_READ", "exception", "general protection fault in {fn}"),
    _oops("WILD_WRITE", "exception", PAGING + "{fn}"),
    _oops("WRITE_RO", "exception", PAGING + "{fn}"),
    _oops("WRITE_RO_AFTER_INIT", "exception", PAGING + "{fn}"),
    _oops("WRITE_KERN", "exception", PAGING + "{fn}"),
    _oops("READ_AFTER_FREE", "exception", "general protection fault in {fn}"),
    *(
        Fault(f"EXEC_{what}", "exception", DIED, EXECUTES)
        for what in ("DATA", "RODATA", "STACK", "KMALLOC", "VMALLOC", "NULL")
    ),
    _warns("WARNING"),
    _warns("WARNING_MESSAGE"),
    _warns("SLAB_FREE_CROSS"),
    _warns("SLAB_FREE_PAGE"),
    _warns("REFCOUNT_ADD_OVERFLOW", "WARNING: refcount bug in {fn}"),
    _warns("REFCOUNT_SUB_AND_TEST_NEGATIVE", "WARNING: refcount bug in {fn}"),
    _oops("EXHAUST_STACK", "memory", "BUG: stack guard page was hit in {fn}", "recurse"),
    Fault("CORRUPT_STACK", "memory", DIED, "kernel panic: stack is corrupted in fault_.*"),
    _oops("STACK_GUARD_PAGE_LEADING", "memory", r"BUG: .* in {fn}"),
    _oops("STACK_GUARD_PAGE_TRAILING", "memory", r"BUG: .* in {fn}"),
    _oops("CORRUPT_LIST_ADD", "memory", "BUG: corrupted list in {fn}"),
    _oops("CORRUPT_LIST_DEL", "memory", "BUG: corrupted list in {fn}"),
    _oops("VMALLOC_LINEAR_OVERFLOW", "memory", r"BUG: .* in {fn}", "overrun"),
    _oops("SLAB_FREE_DOUBLE", "memory", "kernel BUG in {fn}"),
    _oops("USERCOPY_KERNEL", "memory", r"BUG: bad usercopy \(exposure\) in {fn}"),
    *(
        Fault(name, "memory", (*DIED, *HUNG), end=End.EITHER)
        for name in ("SLAB_LINEAR_OVERFLOW", "WRITE_AFTER_FREE", "WRITE_BUDDY_AFTER_FREE")
    ),
    _hang("LOOP", ("softlockup",), "hang in fault_LOOP", "fault_LOOP"),
    _hang("SOFTLOCKUP", ("softlockup",), "hang in fault_SOFTLOCKUP", "fault_SOFTLOCKUP"),
    _hang("HARDLOCKUP", ("irqhang",), r"hang in fault_HARDLOCKUP \(interrupts off\)"),
    _hang("HARDLOCKUP_ALL", ("irqhang",), r"hang in .* \(interrupts off\)"),
    _hang("SPINLOCKUP", ("softlockup",), "hang in fault_SPINLOCKUP"),
    _hang("SPINLOCKUP_IRQ", ("irqhang",), r"hang in fault_SPINLOCKUP_IRQ \(interrupts off\)"),
    _hang("IRQ_STORM", HUNG),
    Fault("SOFTIRQ_STORM", "hang", HUNG, end=End.EITHER),
    _hang("TIMER_LOSS", HUNG),
    *(
        Fault(
            name, "hung task", ("panic",), rf"INFO: task hung in fault_{name}", f"fault_{name}",
            _HUNG_TASK.format(name=name),
        )
        for name in ("HUNG_TASK", "MUTEX_DEADLOCK")
    ),
    Fault("RCU_STALL", "hung task", ("panic",), r"INFO: rcu detected stall in .*", "", _RCU),
    Fault("AGENT_THREAD_STOPPED", "agent", ("softlockup",)),
    Fault("AGENT_UNLOADED", "agent", (), line="rmmod vnode_agent", end=End.STAYS),
    Fault(
        "BRIDGE_SCRIBBLED", "agent", (*DIED, *HUNG, "mce", "corrupt", "halt", "reboot", "kexec"),
        how=How.SCRIBBLE, end=End.EITHER,
    ),
    Fault("USER_DEAD", "user space", ("hang",), limit=60),
    Fault("BEAT_KILLED", "user space", ("hang",), line="killall -9 vnode-beat", limit=60),
    Fault(
        "CONSOLE_FLOOD", "user space", (), end=End.STAYS,
        line="for i in 1 2 3 4 5 6 7 8; do cat /proc/kallsyms; done",
    ),
    Fault("PRINTK_FLOOD", "user space", HUNG, end=End.EITHER),
    Fault("HALT", "orderly", ("halt",), line="halt -f", end=End.HALTED),
    Fault("POWEROFF", "orderly", ("halt",), line="poweroff -f", end=End.HALTED),
    Fault("REBOOT", "orderly", ("reboot",), line="reboot -f"),
    Fault("SYSRQ_B", "orderly", ("reboot",), line="echo b >/proc/sysrq-trigger"),
    _point("INT_HARDWARE_ENTRY", "kernel BUG in in_hard_interrupt", "in_hard_interrupt"),
    _point("INT_HW_IRQ_EN", "kernel panic: crash point handle_irq_event"),
    _point("INT_TASKLET_ENTRY", NULL + "in_tasklet", "in_tasklet"),
    _point("FS_SUBMIT_BH", "kernel panic: crash point submit_bio_noacct", line=(
        "echo FS_SUBMIT_BH >/dev/vnode_faults; dd if=/dev/zero of=/dev/ram0 bs=4k count=4; sync"
    )),
    _point("PAGE_FAULT", "kernel panic: crash point handle_mm_fault"),
    _point("TIMERADD", "kernel panic: crash point hrtimer_start_range_ns"),
    _point("TIMER", "kernel BUG in in_timer", "in_timer"),
    _point("WORKQUEUE", NULL + "in_work", "in_work"),
    Fault("BOOT_REPEATED", "boot", (*DIED, "boot"), how=How.BOOT, repeats=2, limit=60),
    Fault("BOOT_NO_INIT", "boot", ("boot", *DIED), how=How.NO_INIT, repeats=1, limit=90),
    Fault("DURING_CAPTURE", "several", ("panic",), _DUMPTEST, "fault_PANIC", _PANIC,
          how=How.SEVERAL, victims=2, stagger=True, limit=60),
    Fault("TWO_AT_ONCE", "several", ("panic",), _DUMPTEST, "fault_PANIC", _PANIC,
          how=How.SEVERAL, victims=2, limit=60),
    Fault("ALL_AT_ONCE", "several", ("panic",), _DUMPTEST, "fault_PANIC", _PANIC,
          how=How.SEVERAL, victims=99, limit=90),
)  # fmt: skip

BY_NAME = {fault.name: fault for fault in CATALOGUE}

SHORT = ("PANIC", "WILD_READ", "HARDLOCKUP", "CORRUPT_LIST_DEL", "HALT", "TWO_AT_ONCE")
"""A few that differ, for a run of a minute."""

UNCONTAINED = {
    "TRIPLE_FAULT": "a kernel without interrupt table takes an exception: the processor resets the"
    " machine",
    "WILD_WRITE_OUTSIDE": "a kernel that maps and overwrites memory beyond its region: the root's,"
    " another vnode's, or a device's",
    "RESET_PORTS": "writes to the ports 0xcf9 and 0x64 reset the machine",
    "STRAY_INIT": "an INIT or NMI sent through the local APIC to a CPU of another vnode stops it",
}
"""What no root without a hypervisor can contain."""

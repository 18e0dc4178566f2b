# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernels of 4.19 to 6.12 print when they fail, with the title and culprit expected.

The formats are the kernel's; functions, values and order of noise are made up here.
"""

from typing import NamedTuple


class Sample(NamedTuple):
    title: str
    culprit: str
    text: str


REGISTERS = """\
RSP: 0018:ffffc900001b7d30 EFLAGS: 00010246
RAX: 0000000000000000 RBX: ffff888003a10000 RCX: 0000000000000000
RDX: 0000000000000001 RSI: 0000000000000000 RDI: 0000000000000000
RBP: ffffc900001b7d48 R08: 0000000000000000 R09: 0000000000000000
R10: 0000000000000000 R11: 0000000000000000 R12: ffff888003a10000
R13: 0000000000000000 R14: 0000000000000000 R15: 0000000000000000
FS:  00007f2f8c5d4740(0000) GS:ffff88803ec00000(0000) knlGS:0000000000000000
CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
CR2: 0000000000000008 CR3: 00000000036c4000 CR4: 00000000000006f0
"""
USER = """\
RIP: 0033:0x7f2f8c6d1a37
RSP: 002b:00007ffd3a7d7f18 EFLAGS: 00000246 ORIG_RAX: 0000000000000001
RAX: ffffffffffffffda RBX: 0000000000000002 RCX: 00007f2f8c6d1a37
"""
NULL_419 = f"""\
BUG: unable to handle kernel NULL pointer dereference at 0000000000000008
PGD 0 P4D 0
Oops: 0002 [#1] SMP PTI
CPU: 1 PID: 412 Comm: modprobe Tainted: G           O      4.19.0-27-amd64 #1 Debian 4.19.316-1
Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2 04/01/2014
RIP: 0010:widget_store.isra.3+0x1c/0x50 [widget]
Code: 48 89 e5 c6 05 00 00 <c6> 47 08 01 5d c3
{REGISTERS}Call Trace:
 widget_write+0x2a/0x60 [widget]
 ? vfs_write+0xa5/0x1a0
 ksys_write+0x57/0xd0
 do_syscall_64+0x53/0x110
 entry_SYSCALL_64_after_hwframe+0x5c/0xc1
{USER}Modules linked in: widget(O)
CR2: 0000000000000008
---[ end trace 3f1ac7d9b3a2f1c0 ]---
Kernel panic - not syncing: Fatal exception
Kernel Offset: 0x1f000000 from 0xffffffff81000000
---[ end Kernel panic - not syncing: Fatal exception ]---
"""
NULL_61 = f"""\
BUG: kernel NULL pointer dereference, address: 0000000000000008
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
PGD 0 P4D 0
Oops: 0002 [#1] PREEMPT SMP NOPTI
CPU: 0 PID: 77 Comm: sh Tainted: G           OE      6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
RIP: 0010:widget_store+0x1c/0x50 [widget]
{REGISTERS}Call Trace:
 <TASK>
 ? __die_body.cold+0x1a/0x1f
 ? page_fault_oops+0xd2/0x2b0
 widget_write+0x2a/0x60 [widget]
 </TASK>
---[ end trace 0000000000000000 ]---
"""
NULL_612 = f"""\
BUG: kernel NULL pointer dereference, address: 0000000000000008
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI
CPU: 3 UID: 0 PID: 9 Comm: kworker/3:0 Not tainted 6.12.57-amd64 #1  Debian 6.12.57-1
RIP: 0010:widget_store.constprop.0+0x1c/0x50 [widget]
{REGISTERS}Call Trace:
 <TASK>
 widget_write+0x2a/0x60 [widget]
 </TASK>
"""
TITLE_NULL = "BUG: unable to handle kernel NULL pointer dereference in widget_store"
SAMPLES = {
    "null-4.19": Sample(TITLE_NULL, "widget_store", NULL_419),
    "null-6.1": Sample(TITLE_NULL, "widget_store", NULL_61),
    "null-6.12": Sample(TITLE_NULL, "widget_store", NULL_612),
    "paging-6.1": Sample(
        "BUG: unable to handle kernel paging request in widget_read",
        "widget_read",
        f"""\
BUG: unable to handle page fault for address: ffffc90000345000
#PF: supervisor read access in kernel mode
Oops: 0000 [#1] PREEMPT SMP
CPU: 2 PID: 5 Comm: cat Not tainted 6.1.0 #1
RIP: 0010:memcpy_erms+0x6/0x10
{REGISTERS}Call Trace:
 <TASK>
 widget_read+0x44/0x90 [widget]
 vfs_read+0x9d/0x1a0
 </TASK>
""",
    ),
    "gpf-5.10": Sample(
        "general protection fault in widget_poll",
        "widget_poll",
        f"""\
general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP PTI
CPU: 0 PID: 33 Comm: x Not tainted 5.10.0-30-amd64 #1 Debian 5.10.218-1
RIP: 0010:widget_poll+0x12/0x40
{REGISTERS}Call Trace:
 do_poll.constprop.0+0x1/0x2
""",
    ),
    "gpf-6.12": Sample(
        "general protection fault in widget_poll",
        "widget_poll",
        f"""\
Oops: general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP
CPU: 0 UID: 0 PID: 33 Comm: x Not tainted 6.12.57 #1
RIP: 0010:widget_poll+0x12/0x40
{REGISTERS}""",
    ),
    "divide": Sample(
        "divide error in widget_rate",
        "widget_rate",
        f"""\
divide error: 0000 [#1] PREEMPT SMP
CPU: 0 PID: 33 Comm: x Not tainted 6.1.0 #1
RIP: 0010:widget_rate+0x3/0x9
{REGISTERS}""",
    ),
    "bug-4.19": Sample(
        "kernel BUG in widget_tick",
        "widget_tick",
        f"""\
------------[ cut here ]------------
kernel BUG at /build/linux/drivers/widget.c:77!
invalid opcode: 0000 [#1] SMP PTI
CPU: 0 PID: 0 Comm: swapper/0 Not tainted 4.19.0-27-amd64 #1
RIP: 0010:widget_tick+0x5/0x10 [widget]
{REGISTERS}Call Trace:
 <IRQ>
 call_timer_fn+0x30/0x130
 </IRQ>
Kernel panic - not syncing: Fatal exception in interrupt
""",
    ),
    "bug-6.12": Sample(
        "kernel BUG in widget_tick",
        "widget_tick",
        f"""\
------------[ cut here ]------------
kernel BUG at drivers/widget.c:78!
Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
CPU: 3 UID: 0 PID: 0 Comm: swapper/3 Not tainted 6.12.57 #1
RIP: 0010:widget_tick+0x5/0x10 [widget]
{REGISTERS}""",
    ),
    "list": Sample(
        "BUG: corrupted list in widget_drop",
        "widget_drop",
        f"""\
list_del corruption, ffff8880044a1000->next is LIST_POISON1 (dead000000000100)
------------[ cut here ]------------
kernel BUG at lib/list_debug.c:56!
invalid opcode: 0000 [#1] PREEMPT SMP
CPU: 1 PID: 71 Comm: rmmod Not tainted 6.1.0 #1
RIP: 0010:__list_del_entry_valid.cold+0x1d/0x47
{REGISTERS}Call Trace:
 <TASK>
 widget_drop+0x31/0x70 [widget]
 </TASK>
""",
    ),
    "stack-5.10": Sample(
        "BUG: stack guard page was hit in widget_walk",
        "widget_walk",
        f"""\
BUG: stack guard page was hit at 00000000aaf2d2ec (stack is 000000001c3a07d5..00000000a1a1f1f1)
kernel stack overflow (double-fault): 0000 [#1] SMP PTI
CPU: 1 PID: 71 Comm: insmod Not tainted 5.10.0 #1
RIP: 0010:widget_walk+0x1d/0x47 [widget]
{REGISTERS}""",
    ),
    "softlockup": Sample(
        "BUG: soft lockup in widget_wait",
        "widget_wait",
        f"""\
watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [insmod:283]
Modules linked in: widget(OE+)
CPU: 1 PID: 283 Comm: insmod Not tainted 6.1.0 #1
RIP: 0010:native_queued_spin_lock_slowpath+0x5e/0x1a0
{REGISTERS}Call Trace:
 <TASK>
 _raw_spin_lock+0x25/0x30
 widget_wait+0x7/0x20 [widget]
 </TASK>
Kernel panic - not syncing: softlockup: hung tasks
CPU: 1 PID: 283 Comm: insmod Tainted: G             L     6.1.0 #1
Call Trace:
 <IRQ>
 dump_stack_lvl+0x44/0x5c
 panic+0x118/0x2f4
 watchdog_timer_fn.cold+0xc/0x16
 </IRQ>
""",
    ),
    "hardlockup": Sample(
        "BUG: hard lockup in widget_spin",
        "widget_spin",
        f"""\
NMI watchdog: Watchdog detected hard LOCKUP on cpu 2
CPU: 2 PID: 283 Comm: insmod Not tainted 6.1.0 #1
RIP: 0010:widget_spin+0x7/0x20 [widget]
{REGISTERS}Kernel panic - not syncing: Hard LOCKUP
""",
    ),
    "hung": Sample(
        "INFO: task hung in widget_flush",
        "widget_flush",
        """\
INFO: task kworker/u4:1:123 blocked for more than 120 seconds.
      Not tainted 6.1.0-56-amd64 #1
"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.
task:kworker/u4:1    state:D stack:0     pid:123   ppid:2      flags:0x00004000
Call Trace:
 <TASK>
 __schedule+0x34d/0xa00
 schedule+0x5a/0xd0
 schedule_preempt_disabled+0x11/0x20
 __mutex_lock.constprop.0+0x39d/0x720
 widget_flush+0x27/0x30 [widget]
 process_one_work+0x1c4/0x3e0
 </TASK>
""",
    ),
    "rcu": Sample(
        "INFO: rcu detected stall in widget_loop",
        "widget_loop",
        f"""\
rcu: INFO: rcu_preempt self-detected stall on CPU
rcu: \t1-....: (5249 ticks this GP) idle=8d4c/1/0x4000000000000000 softirq=1/1 fqs=2624
CPU: 1 PID: 9 Comm: insmod Not tainted 6.1.0 #1
RIP: 0010:widget_loop+0x7/0x9 [widget]
{REGISTERS}""",
    ),
    "warning-panic": Sample(
        "WARNING in widget_check",
        "widget_check",
        f"""\
------------[ cut here ]------------
WARNING: CPU: 1 PID: 9 at drivers/widget.c:41 widget_check+0x7/0x9 [widget]
CPU: 1 PID: 9 Comm: insmod Not tainted 6.1.0 #1
RIP: 0010:widget_check+0x7/0x9 [widget]
{REGISTERS}Kernel panic - not syncing: panic_on_warn set ...
""",
    ),
    "refcount": Sample(
        "WARNING: refcount bug in widget_put",
        "widget_put",
        f"""\
------------[ cut here ]------------
refcount_t: underflow; use-after-free.
WARNING: CPU: 1 PID: 9 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110
CPU: 1 PID: 9 Comm: x Not tainted 6.1.0 #1
RIP: 0010:refcount_warn_saturate+0xba/0x110
{REGISTERS}Call Trace:
 <TASK>
 widget_put+0x40/0x50 [widget]
 </TASK>
""",
    ),
    "slab-5.10": Sample(
        "BUG kmalloc-64: Poison overwritten, freed in widget_free",
        "widget_free",
        """\
=============================================================================
BUG kmalloc-64 (Tainted: G           OE    ): Poison overwritten
-----------------------------------------------------------------------------

INFO: 0x00000000a1b2c3d4-0x00000000a1b2c3e4 @offset=528. First byte 0x58 instead of 0x6b
INFO: Allocated in widget_new+0x1c/0x30 [widget] age=3 cpu=1 pid=60
Allocated in widget_new+0x1c/0x30 [widget] age=3 cpu=1 pid=60
Freed in widget_free+0x12/0x20 [widget] age=3 cpu=1 pid=60
""",
    ),
    "slab-6.12": Sample(
        "BUG kmalloc-64: Poison overwritten, freed in widget_free",
        "widget_free",
        """\
[Poison overwritten] 0xffff88800524cf50-0xffff88800524cf5f @offset=3920. First byte 0x58 instead
=============================================================================
BUG kmalloc-64 (Tainted: G           OE     ): Object corrupt
-----------------------------------------------------------------------------

Allocated in widget_new+0x1b/0x30 [widget] age=0 cpu=0 pid=141
Freed in widget_free+0x11/0x20 [widget] age=0 cpu=0 pid=141
""",
    ),
    "kasan": Sample(
        "KASAN: slab-use-after-free Write in widget_put",
        "widget_put",
        """\
==================================================================
BUG: KASAN: slab-use-after-free in widget_put+0x31/0x40
Write of size 8 at addr ffff88800a7d4c10 by task syz/1234
CPU: 1 PID: 1234 Comm: syz Not tainted 6.6.0 #1
""",
    ),
    "sysrq": Sample(
        "kernel panic: sysrq triggered crash",
        "sysrq_handle_crash",
        """\
sysrq: Trigger a crash
Kernel panic - not syncing: sysrq triggered crash
CPU: 1 PID: 1 Comm: init Not tainted 6.1.0-56-cloud-amd64 #1
Call Trace:
 <TASK>
 dump_stack_lvl+0x44/0x5c
 panic+0x118/0x2f4
 sysrq_handle_crash+0x16/0x20
 </TASK>
""",
    ),
    "root": Sample(
        "kernel panic: VFS: Unable to mount root fs on unknown-block(NUM,NUM)",
        "mount_root_generic",
        """\
Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(8,1)
CPU: 1 PID: 1 Comm: swapper/0 Not tainted 6.1.0 #1
Call Trace:
 panic+0x118/0x2f4
 mount_root_generic+0x1e1/0x26a
""",
    ),
    "init": Sample(
        "kernel panic: Attempted to kill init!",
        "do_exit",
        """\
Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
CPU: 1 PID: 1 Comm: init Not tainted 6.1.0 #1
Call Trace:
 panic+0x118/0x2f4
 do_exit+0x1e1/0x26a
""",
    ),
    "null-call": Sample(
        "BUG: unable to handle kernel NULL pointer dereference in widget_call",
        "widget_call",
        f"""\
BUG: kernel NULL pointer dereference, address: 0000000000000000
#PF: supervisor instruction fetch in kernel mode
Oops: 0010 [#1] PREEMPT SMP
CPU: 1 PID: 8 Comm: x Not tainted 6.1.0 #1
RIP: 0010:0x0
Code: Unable to access opcode bytes at 0xffffffffffffffd6.
{REGISTERS}Call Trace:
 <TASK>
 widget_call+0x15/0x20
 </TASK>
""",
    ),
}

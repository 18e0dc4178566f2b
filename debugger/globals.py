# SPDX-License-Identifier: GPL-2.0-or-later
"""Types of the kernel's global variables: BTF has those of per-CPU ones only.

As C spells them; what a kernel's BTF does not have is left out.  Source:
include/linux, init/, kernel/, mm/ and arch/x86 of Linux 6.1.
"""

import struct

from introspect.btf import BOOL, MAGIC, SIGNED, Kind

GLOBALS = {
    "__cpu_online_mask": "struct cpumask",
    "__cpu_possible_mask": "struct cpumask",
    "__cpu_present_mask": "struct cpumask",
    "__per_cpu_offset": "unsigned long []",
    "boot_command_line": "const char []",
    "boot_cpu_data": "struct cpuinfo_x86",
    "cgrp_dfl_root": "struct cgroup_root",
    "console_drivers": "struct console *",
    "console_printk": "int []",
    "crash_kexec_post_notifiers": "bool",
    "files_stat": "struct files_stat_struct",
    "init_cred": "struct cred",
    "init_files": "struct files_struct",
    "init_fs": "struct fs_struct",
    "init_mm": "struct mm_struct",
    "init_net": "struct net",
    "init_nsproxy": "struct nsproxy",
    "init_pid_ns": "struct pid_namespace",
    "init_signals": "struct signal_struct",
    "init_task": "struct task_struct",
    "init_user_ns": "struct user_namespace",
    "init_uts_ns": "struct uts_namespace",
    "iomem_resource": "struct resource",
    "ioport_resource": "struct resource",
    "jiffies": "unsigned long",
    "jiffies_64": "unsigned long",
    "linux_banner": "const char []",
    "linux_proc_banner": "const char []",
    "max_pfn": "unsigned long",
    "memblock": "struct memblock",
    "modules": "struct list_head",
    "nr_cpu_ids": "unsigned int",
    "nr_threads": "int",
    "page_offset_base": "unsigned long",
    "panic_cpu": "int",
    "panic_on_oops": "int",
    "panic_on_warn": "int",
    "panic_timeout": "int",
    "phys_base": "unsigned long",
    "prb": "struct printk_ringbuffer *",
    "root_task_group": "struct task_group",
    "saved_command_line": "char *",
    "slab_caches": "struct list_head",
    "super_blocks": "struct list_head",
    "sysctl_sched_features": "unsigned int",
    "system_state": "enum system_states",
    "tainted_mask": "unsigned long",
    "tick_do_timer_cpu": "int",
    "total_forks": "unsigned long",
    "totalram_pages": "unsigned long",
    "_totalram_pages": "unsigned long",
    "tsc_khz": "unsigned int",
    "vm_node_stat": "unsigned long []",
    "vmalloc_base": "unsigned long",
    "vmemmap_base": "unsigned long",
    "workqueues": "struct list_head",
}


def plain_btf() -> bytes:
    """A BTF blob of C's own types, for kernels that were built without BTF."""
    strings, types = b"\0", b""
    # char is signed on x86, but no number
    for name, size, encoding in (
        ("char", 1, SIGNED),
        ("int", 4, SIGNED),
        ("unsigned int", 4, 0),
        ("long unsigned int", 8, 0),
        ("_Bool", 1, BOOL),
    ):
        words = (len(strings), Kind.INT << 24, size, encoding << 24 | 8 * size)
        types += struct.pack("<4I", *words)
        strings += name.encode() + b"\0"
    header = struct.pack("<HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings

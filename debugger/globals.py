# SPDX-License-Identifier: GPL-2.0-or-later
"""Types of the kernel's global variables: BTF has those of per-CPU ones only.

As C spells them; what a kernel's BTF does not have is left out.  Source:
include/linux, init/, kernel/, mm/ and arch/x86 of Linux 6.1.
"""

import struct

from introspect.btf import BOOL, MAGIC, SIGNED, Kind
from introspect.object import GLOBALS as KNOWN

GLOBALS = KNOWN | {
    "__per_cpu_offset": "unsigned long []",
    "boot_command_line": "const char []",
    "bus_kset": "struct kset *",
    "class_kset": "struct kset *",
    "console_printk": "int []",
    "crash_kexec_post_notifiers": "bool",
    "devices_kset": "struct kset *",
    "files_stat": "struct files_stat_struct",
    "hrtimer_resolution": "unsigned int",
    "init_cred": "struct cred",
    "init_files": "struct files_struct",
    "init_fs": "struct fs_struct",
    "init_signals": "struct signal_struct",
    "iomem_resource": "struct resource",
    "ioport_resource": "struct resource",
    "jiffies_64": "unsigned long",
    "linux_banner": "const char []",
    "linux_proc_banner": "const char []",
    "max_pfn": "unsigned long",
    "memblock": "struct memblock",
    "nr_threads": "int",
    "panic_cpu": "int",
    "panic_on_oops": "int",
    "panic_on_warn": "int",
    "panic_timeout": "int",
    "sysctl_sched_features": "unsigned int",
    "system_state": "enum system_states",
    "tick_do_timer_cpu": "int",
    "total_forks": "unsigned long",
    "totalram_pages": "unsigned long",
    "_totalram_pages": "unsigned long",
    "tsc_khz": "unsigned int",
    "vm_node_stat": "unsigned long []",
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""One vnode debugs another's kernel: gdb over shared memory.

packet, registers and features are pure; session, handlers and monitor make a
protocol of them; target, tasks and cpus say what is debugged; control stops
its CPUs, pilot puts that into the protocol's words; server, gdb and attach are
the shell around it; symfile and modulefile give gdb symbols without debuginfo:
dwarf makes types of BTF, frames call frames of ORC, elf writes.  qemu,
stub_proxy and serial_line are for machines that are no vnodes.
"""

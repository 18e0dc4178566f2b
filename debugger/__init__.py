# SPDX-License-Identifier: GPL-2.0-or-later
"""One vnode debugs another's kernel: gdb over shared memory.

packet, registers, features and tlb are pure; session and handlers make a
protocol of them; target says what is debugged; server, gdb and attach are the
shell around it; symfile gives gdb symbols without debuginfo.
"""

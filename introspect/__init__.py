# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads any x86-64 Linux kernel out of raw physical memory, without debuginfo.

    from introspect.kernel import Kernel
    from introspect.memory import open_image

    kernel = Kernel.find(open_image("ram.raw"))
    print(kernel.release)
    for record in kernel.log():
        print(record.text)

Knows Linux, knows no vnodes.  Everything read is hostile: bounded, checked,
and reported through introspect.errors.
"""

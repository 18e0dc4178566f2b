# SPDX-License-Identifier: GPL-2.0-or-later
"""The box: the SMP machine in a QEMU process, for hosts that cannot spare CPUs of their own.

QEMU stands for the hardware only.  Inside, a stock Debian kernel is the root vnode with a small
Debian (Python, gdb, this checkout) and the other vnodes boot natively beside it.

    from box import machine
    machine.up(machine.Options(), print)
    subprocess.run(machine.exec_argv(["vnode-debug", "status"], tty=False))
    machine.down(print)
"""

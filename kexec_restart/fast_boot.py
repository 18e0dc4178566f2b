# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of the kernel command line that shorten a vnode's boot, and what each costs.

Source: Documentation/admin-guide/kernel-parameters.txt of Linux 6.1.
"""

from __future__ import annotations

from typing import Final

WORDS: Final[tuple[tuple[str, str], ...]] = (
    ("mitigations=off", "processes of the vnode are no longer kept apart from Spectre and its kin"),
    ("audit=0", "no audit records"),
    ("lsm=", "no security modules: AppArmor, Yama, Landlock, integrity"),
    ("cryptomgr.notests", "crypto algorithms are not tested before they are used"),
    ("rcupdate.rcu_expedited=1", "RCU grace periods disturb other CPUs of the vnode"),
    ("raid=noautodetect", "no old RAID arrays are assembled by the kernel"),
    ("no_timer_check", "a timer interrupt that does not come is not noticed at boot"),
    ("random.trust_cpu=on", "RDRAND alone may seed the random numbers"),
)
"""The words and what each costs."""

CMDLINE: Final = " ".join(word for word, _ in WORDS)

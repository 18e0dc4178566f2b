# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel command line of a vnode: the words it needs to leave the machine alone, then yours.

KASLR stays on unless the user says `nokaslr`.  A later word wins over an earlier one in Linux, so
the user's words can override most of these; doing so with the first four breaks containment.
"""

from typing import Final

from adeos import firmware
from adeos.errors import ImageError

WORDS: Final[tuple[tuple[str, str], ...]] = (
    ("pci=off", "the PCI devices are the root's"),
    ("no_ipi_broadcast=1", "a stop IPI to all CPUs would stop the root and the other vnodes"),
    (
        "reserve=0x3f8,8,0x2f8,8,0x3e8,8,0x2e8,8",
        "keeps the 8250 driver from probing the root's serial ports",
    ),
    ("io_delay=none", "port 0x80 is the root's"),
    ("tsc_early_khz={tsc_khz}", "no calibration against the PIT, which is the root's"),
    ("tsc=reliable", "no clocksource watchdog: there is no second clock"),
    ("nowatchdog", "no perf NMI watchdog: the root watches"),
    ("oops=panic", "an oops is a fault to contain, not to live with"),
    ("panic=0", "a panicked kernel waits for the root instead of rebooting the machine"),
    ("console=hvc0", "the console is a ring in the bridge, served by the agent"),
)
"""The words and why each is needed; {tsc_khz} is filled in."""

PM_TIMER: Final = "pmtmr={port:#x}"
"""Where the machine has one.  A kernel measures the timer of its local APIC against the TSC while
it boots, in 25 steps, and takes them for 100 ms however long the host made them: timers then run
late or, for a pause in the first step, never.  Checked by the power management timer, a counter
that may be read by anybody, the measure holds."""


def compose(tsc_khz: int, user: str, limit: int) -> bytes:
    """The command line with its NUL; ImageError when that is longer than `limit` bytes."""
    if not user.isascii() or not (user.isprintable() or not user):
        raise ImageError(
            f"command line {user!r} holds characters that are not printable ASCII",
            "write it on one line",
        )
    words = [word.format(tsc_khz=tsc_khz) for word, _ in WORDS]
    port = firmware.pm_timer()
    if port:
        words.append(PM_TIMER.format(port=port))
    line = " ".join([*words, *user.split(" ")]).strip().encode() + b"\0"
    if len(line) > limit:
        raise ImageError(
            f"command line is {len(line) - 1} characters long, {limit - 1} fit",
            f"shorten yours by {len(line) - limit}",
        )
    return line

# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of a vnode's warm restarts, a unit; watchdog/warm.py fills it in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from adeos import abi
from kexec_restart.warm_image import Resume


@dataclass
class Warmth:
    """`way`, `image_tsc` and `standby_tsc` are published, 0 = there is none."""

    way: abi.Way = abi.Way.COLD
    image_tsc: int = 0
    standby_tsc: int = 0
    resume: Resume | None = None
    """How to resume what was put in place; None: it is to be booted."""
    image_age: float | None = None
    """Seconds, of the image that was used last; None: it was booted."""
    wish: str = ""
    """The strategy that an operator wants for the next start."""
    resumed_at: int = 0
    """When it was last resumed after a crash, ns of a steady clock; 0 = it was booted."""
    proven: bool = True
    """It has beaten since it was resumed."""
    quick: int = 0
    """Failures in a row, each soon after a resume."""
    stays: bool = False
    """Its image waits to be put back into its own region."""
    answer: asyncio.Future[None] | None = None
    """Of a freeze that was asked for; its end."""

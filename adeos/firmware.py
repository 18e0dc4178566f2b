# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine's own ACPI tables say that vnodes want to know."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

_TABLES: Final = Path("/sys/firmware/acpi/tables")
_SYSTEM_IO: Final = 1
_PM_TMR_BLK, _X_PM_TMR_BLK = 76, 208  # ACPI 6.3, table 5-9


def fadt_pm_timer(fadt: bytes) -> int:
    """The port of the power management timer by a FADT, 0 = it has none that is a port."""
    extended = fadt[_X_PM_TMR_BLK : _X_PM_TMR_BLK + 12]
    port = 0
    if len(extended) == 12 and extended[0] == _SYSTEM_IO:
        port = int.from_bytes(extended[4:], "little")
    port = port or int.from_bytes(fadt[_PM_TMR_BLK : _PM_TMR_BLK + 4], "little")
    return port if port <= 0xFFFC else 0


@cache
def pm_timer() -> int:
    """The port of this machine's power management timer; 0 = none, or we may not know."""
    try:
        return fadt_pm_timer((_TABLES / "FACP").read_bytes())
    except OSError:
        return 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the supervisor wants done; the daemon carries it out in the order given."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.states import Fault


@dataclass(frozen=True, slots=True)
class Fence:
    """Gather registers first, then park all CPUs.

    `gather`: record (the agent's crash record), nmi, probe (the probe has them) or nothing.
    """

    incarnation: int
    gather: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the silent CPUs by NMI whether they live, before `fault` is believed."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """Commit an incident row before anything else is done about the fault."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Capture:
    """Make the memory safe as the open incident's dump."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class FinishIncident:
    """Close the open incident."""

    outcome: str


@dataclass(frozen=True, slots=True)
class Load:
    """Bind if needed and compose the memory of a new incarnation from the image in `slot`."""

    incarnation: int
    slot: str = "a"


@dataclass(frozen=True, slots=True)
class Start:
    """Start the boot CPU."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Post DelayElapsed(until) at that time."""

    until: int


@dataclass(frozen=True, slots=True)
class Release:
    """Unbind: CPUs and memory go back."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Freeze the running vnode, keep its image, let it go on; not of the supervisor (warm.py)."""

    incarnation: int


Action = (
    Fence | Probe | OpenIncident | Capture | FinishIncident | Load | Start | Wait | Release | Freeze
)
Actions = tuple[Action, ...]

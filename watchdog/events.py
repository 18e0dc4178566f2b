# SPDX-License-Identifier: GPL-2.0-or-later
"""What the supervisor is told: operators' wishes, what was seen, how actions went."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.states import Fault


@dataclass(frozen=True, slots=True)
class StartRequested:
    """`force`: also out of quarantine, with a fresh budget."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Fence it and give its CPUs and memory back."""


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """Fence it and start it anew; not charged to its budget."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class FenceRequested:
    """Park its CPUs and keep its memory as it is."""


@dataclass(frozen=True, slots=True)
class ClearRequested:
    """Out of quarantine with a fresh budget, stopped."""


@dataclass(frozen=True, slots=True)
class Faulted:
    """Reported by the vnode, or beyond doubt: an unreadable bridge, still jiffies, a timeout."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Silent:
    """Beats are missing beyond their limit: `fault`, unless a probe finds the CPUs alive."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Probed:
    """`answered`: silent CPUs that took the NMI; `moving`: every silent CPU beats again."""

    incarnation: int
    answered: tuple[int, ...] = ()
    moving: bool = False


@dataclass(frozen=True, slots=True)
class Suspected:
    """`reason`: the layer that is late."""

    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """Beats are missing because a debugger has control; `by`: its words."""

    incarnation: int
    by: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """All layers beat again."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The first user beat (or, without an agent, moving jiffies)."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Healthy:
    """It has been running for the policy's healthy time."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class DelayElapsed:
    """The time of a Wait has come."""

    until: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """All CPUs confirmed that they are parked; `fault`: what is known better by now."""

    incarnation: int
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class FenceFailed:
    """At least one CPU did not confirm: memory must not be touched."""

    incarnation: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Captured:
    """The memory is safe: copied, or held in its region as the dump."""

    incarnation: int
    duration: int = 0


@dataclass(frozen=True, slots=True)
class CaptureFailed:
    """No dump; `text` says why."""

    incarnation: int
    text: str = ""
    duration: int = 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """The memory of this incarnation is composed."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """Nothing was started."""

    incarnation: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class ImageRefused:
    """Nothing was started: the staged image is not what was staged, or is none."""

    incarnation: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """INIT-SIPI-SIPI was sent to the boot CPU."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The machine refused to start it."""

    incarnation: int
    text: str = ""


Event = (
    StartRequested
    | StopRequested
    | RestartRequested
    | FenceRequested
    | ClearRequested
    | Faulted
    | Silent
    | Probed
    | Suspected
    | Held
    | Recovered
    | Ready
    | Healthy
    | DelayElapsed
    | Fenced
    | FenceFailed
    | Captured
    | CaptureFailed
    | Loaded
    | LoadFailed
    | ImageRefused
    | Started
    | StartFailed
)

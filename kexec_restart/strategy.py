# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to bring a vnode up again, as plain objects: what each does is data, printable before use.

`kmb` boots the staged image in the vnode's own region, so the old memory is
copied out first; `spare` boots it in another region at once, so the old
region is the dump until it has been written out.  `warm` and `standby` do not
boot: they resume a kernel that was frozen, from its image copied back into its
own region, or in another region where it stands ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from adeos.abi import Range


class Step(NamedTuple):
    """One step: a word for it (as in the incident's stamps) and what it does."""

    name: str
    text: str


class Target(NamedTuple):
    """What a strategy is applied to."""

    vnode: int
    name: str
    cpus: Sequence[int]
    region: Range
    capture: bool
    """Whether the policy wants a dump."""


class Strategy(NamedTuple):
    """`region`: where the successor boots."""

    name: str
    region: Range

    def steps(self, target: Target) -> tuple[Step, ...]:
        """What a restart does, in order."""
        cpus = ", ".join(map(str, target.cpus))
        fence = Step("fenced", f"save registers; INIT CPUs {cpus}; wait until each is parked")
        start = Step("started", f"INIT-SIPI-SIPI to CPU {target.cpus[0]}")
        wait = Step("running", "wait for the first user beat of the new incarnation")
        return (fence, *self._capture(target), self._load(), start, wait)

    def _load(self) -> Step:
        where = _show(self.region)
        if self.name == "standby":
            return Step("restored", f"check the image's header; its kernel stands by at {where}")
        if self.name == "warm":
            return Step("restored", f"verify the image; put back what differs at {where}")
        return Step("loaded", f"verify the staged image; compose it at {where}")

    def _capture(self, target: Target) -> tuple[Step, ...]:
        if not target.capture:
            return ()
        if self.region != target.region:
            held = f"hold {_show(target.region)} as the dump; write it out in the background"
            return (Step("captured", held),)
        return (Step("captured", f"copy {_show(target.region)} to the incident's dump"),)


def choose(own: Range, spare: Range | None, *, capture: bool) -> Strategy:
    """`spare` when a dump is wanted and a free region of the size is there, else `kmb`."""
    if capture and spare is not None and spare.size >= own.size:
        return Strategy("spare", spare)
    return Strategy("kmb", own)


def resumed(own: Range, image: bool, standby: Range | None, *, strategy: str) -> Strategy | None:
    """`standby` or `warm`, as wanted and as there is a region or an `image` for it; else None."""
    if strategy == "standby" and standby is not None:
        return Strategy("standby", standby)
    if strategy != "cold" and image:
        return Strategy("warm", own)
    return None


def _show(region: Range) -> str:
    return f"{region.base:#x}+{region.size >> 20}M"

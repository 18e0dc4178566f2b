# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to bring a vnode up again, as plain objects: what each does is data, printable before use.

`kmb` boots the staged image in the vnode's own region, so the old memory is
copied out first; `spare` boots it in another region at once, so the old
region is the dump until it has been written out; `warm` and `standby` do not
boot: they resume a kernel that was frozen, from its image copied back into its
own region, or in another region where it stands ready; `fire` is kmb.ko's own, without a
daemon; `manual` starts nothing: an operator does.  A further one is a class with `name`, `region`
and `steps`, and a line in `named`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from adeos.abi import Range
from adeos.errors import PlacementError


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


class Strategy(Protocol):
    """How a fenced vnode is brought up again."""

    name: ClassVar[str]

    @property
    def region(self) -> Range:
        """Where the successor runs."""

    def steps(self, target: Target) -> tuple[Step, ...]:
        """What a restart after a crash does, in order."""


@dataclass(frozen=True, slots=True)
class Kmb:
    """Boots in the vnode's own region."""

    name: ClassVar[str] = "kmb"
    region: Range

    def steps(self, target: Target) -> tuple[Step, ...]:
        """The dump is copied out before the region is written."""
        return (fence(target), *copy(target), *boot(target, self.region))


@dataclass(frozen=True, slots=True)
class Spare:
    """Boots in another region of the size."""

    name: ClassVar[str] = "spare"
    region: Range

    def steps(self, target: Target) -> tuple[Step, ...]:
        """The old region is the dump."""
        drop = Step("captured", f"give {show(target.region)} back: no dump is wanted")
        return (fence(target), *(hold(target) or (drop,)), *boot(target, self.region))


@dataclass(frozen=True, slots=True)
class Warm:
    """Resumes the vnode's own image, copied back into its region."""

    name: ClassVar[str] = "warm"
    region: Range

    def steps(self, target: Target) -> tuple[Step, ...]:
        """The dump is copied out before the region is healed."""
        put = f"verify the image; put back what differs at {show(self.region)}"
        return (fence(target), *copy(target), Step("restored", put), *run(target))


@dataclass(frozen=True, slots=True)
class Standby:
    """Resumes a kernel that stands ready in another region."""

    name: ClassVar[str] = "standby"
    region: Range

    def steps(self, target: Target) -> tuple[Step, ...]:
        """The old region is the dump, and is refilled to stand by in its turn."""
        ready = f"check the image's header; its kernel stands by at {show(self.region)}"
        return (fence(target), *hold(target), Step("restored", ready), *run(target))


@dataclass(frozen=True, slots=True)
class Fire:
    """What kmb.ko does by itself when no daemon is there: boots what was composed ahead."""

    name: ClassVar[str] = "fire"
    region: Range

    def steps(self, target: Target) -> tuple[Step, ...]:
        """The first is done while all is well, the last when a daemon is back."""
        ahead = f"compose it ahead for {show(self.region)}; kmb.ko has the digests"
        seen = "in the kernel: no daemon ticks, and a crash record or beats missing"
        moves = self.region != target.region
        kept = hold(target) if moves else (Step("captured", "keep bridge and registers alone"),)
        done = Step("filed", "by the next daemon: the incident, with its dump")
        steps = (Step("armed", ahead), Step("seen", seen), fence(target), *kept)
        return (*steps, *run(target), done)


@dataclass(frozen=True, slots=True)
class Manual:
    """Starts nothing by itself; the memory stays as it is, or goes back with `release`."""

    name: ClassVar[str] = "manual"
    region: Range
    release: bool = False

    def steps(self, target: Target) -> tuple[Step, ...]:
        """Ends with what the operator does."""
        keep = Step("kept", f"leave {show(target.region)} as it is, its CPUs parked")
        back = Step("released", f"give {show(target.region)} and its CPUs back")
        wish = Step("started", f"by an operator: vnode-debug start {target.vnode}")
        return (fence(target), *copy(target), back if self.release else keep, wish)


def fence(target: Target) -> Step:
    """What comes first, whatever follows."""
    cpus = ", ".join(map(str, target.cpus))
    return Step("fenced", f"save registers; INIT CPUs {cpus}; wait until each is parked")


def copy(target: Target) -> tuple[Step, ...]:
    """The capture of a region that is needed again; nothing where no dump is wanted."""
    step = Step("captured", f"copy {show(target.region)} to the incident's dump")
    return (step,) if target.capture else ()


def hold(target: Target) -> tuple[Step, ...]:
    """The capture of a region that the vnode leaves; nothing where no dump is wanted."""
    text = f"hold {show(target.region)} as the dump; write it out in the background"
    return (Step("captured", text),) if target.capture else ()


def boot(target: Target, region: Range) -> tuple[Step, ...]:
    """A kernel started from its staged image in `region`."""
    return (
        Step("loaded", f"verify the staged image; compose it at {show(region)}"),
        *run(target),
    )


def run(target: Target) -> tuple[Step, ...]:
    """What ends every start."""
    return (
        Step("started", f"INIT-SIPI-SIPI to CPU {target.cpus[0]}"),
        Step("running", "wait for the first user beat of the new incarnation"),
    )


def choose(own: Range, spare: Range | None, *, capture: bool) -> Strategy:
    """`spare` when a dump is wanted and a free region of the size is there, else `kmb`."""
    if capture and spare is not None and spare.size >= own.size:
        return Spare(spare)
    return Kmb(own)


def resumed(own: Range, image: bool, standby: Range | None, *, strategy: str) -> Strategy | None:
    """`standby` or `warm`, as wanted and as there is a region or an `image` for it; else None."""
    if strategy == "standby" and standby is not None:
        return Standby(standby)
    if strategy != "cold" and image:
        return Warm(own)
    return None


def after_crash(on_crash: str, own: Range, spare: Range | None) -> Strategy:
    """What the policy `on_crash` ([vnode.restart]) leads to."""
    if on_crash.endswith("restart"):
        return choose(own, spare, capture=on_crash.startswith("coredump"))
    return Manual(own, release=on_crash.endswith("destroy"))


def named(name: str, own: Range, spare: Range | None) -> Strategy | None:
    """The strategy of that name, None when there is no such name.

    PlacementError when it cannot be had now.
    """
    match name:
        case "kmb":
            return Kmb(own)
        case "manual":
            return Manual(own)
        case "fire":
            return Fire(spare if spare is not None and spare.size >= own.size else own)
        case "spare":
            if spare is None or spare.size < own.size:
                raise PlacementError(
                    f"no spare region of {own.size >> 20}M is free",
                    "give the machine more memory, or use kmb",
                )
            return Spare(spare)
    return None


NAMES = (Kmb.name, Spare.name, Fire.name, Manual.name)


def show(region: Range) -> str:
    """Size and place for people: 0x20000000+256M."""
    return f"{region.base:#x}+{region.size >> 20}M"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Two slots a vnode, a and b: which image is started next, and what is known of it.  Pure.

As in systemd-boot and RAUC: a new image is indeterminate and has so many
tries; each start takes one; running for a healthy time makes it good; without
tries left, or when its restarts did not help, it is bad and the other slot is
started.  Tries are taken at the start, so that an image which takes the whole
machine down with it is given up too.  With nothing to fall back to, a slot is
started whatever is said of it: the restart budget sees to the end of that.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from kexec_restart.images import Spec

NAMES = ("a", "b")


class Health(StrEnum):
    """What is known of a slot's image."""

    EMPTY = "empty"
    INDETERMINATE = "indeterminate"
    """Not yet run for its healthy time; `tries` says how often it may still be started."""
    GOOD = "good"
    BAD = "bad"
    """See `why`."""


class Slot(msgspec.Struct, frozen=True):
    """One image and its record; `staged` is a Unix time."""

    spec: Spec = Spec("", "", "")
    health: Health = Health.EMPTY
    tries: int = 0
    why: str = ""
    staged: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether it may be started by itself."""
        return self.health is Health.GOOD or (
            self.health is Health.INDETERMINATE and self.tries > 0
        )


class Slots(msgspec.Struct, frozen=True):
    """`first`: the slot preferred; `running`: the one started last; `named`: the config's image.

    A vnode whose image nobody has staged yet has it in slot a, unknown.
    """

    a: Slot = Slot(health=Health.INDETERMINATE)
    b: Slot = Slot()
    first: str = "a"
    running: str = ""
    name: str = ""
    """The vnode's, for those who read the file."""
    named: Spec | None = None

    def get(self, name: str) -> Slot:
        """The slot of that name."""
        return self.a if name == "a" else self.b

    def put(self, name: str, slot: Slot) -> Slots:
        """With that slot replaced."""
        return msgspec.structs.replace(self, **{name: slot})

    @property
    def current(self) -> str:
        """The slot started last; before any start, the one preferred."""
        return self.running or self.first


def other(name: str) -> str:
    """The other slot's name."""
    return "b" if name == "a" else "a"


def choose(slots: Slots) -> str:
    """The slot to start next."""
    for name in (slots.first, other(slots.first)):
        if slots.get(name).usable:
            return name
    return slots.first if slots.get(slots.first).health is not Health.EMPTY else other(slots.first)


def unattended(slots: Slots) -> str:
    """The slot to start where nobody counts tries: a good one where there is one."""
    for name in (slots.first, other(slots.first)):
        if slots.get(name).health is Health.GOOD:
            return name
    return choose(slots)


def on_trial(slots: Slots) -> bool:
    """Whether the count of tries of the slot started last decides anything."""
    return slots.get(slots.current).health is Health.INDETERMINATE and fallback(slots)


def fallback(slots: Slots) -> bool:
    """Whether the slot that does not run could be started instead."""
    return slots.get(other(slots.current)).usable


def started(slots: Slots, name: str) -> Slots:
    """A start of this slot: it takes a try."""
    slot = slots.get(name)
    if slot.health is Health.INDETERMINATE:
        slots = slots.put(name, msgspec.structs.replace(slot, tries=max(slot.tries - 1, 0)))
    return slots if slots.running == name else msgspec.structs.replace(slots, running=name)


def returned(slots: Slots, most: int) -> Slots:
    """The running slot was ended by an operator and has not failed: its try is given back."""
    slot = slots.get(slots.current)
    if slot.health is not Health.INDETERMINATE:
        return slots
    return slots.put(slots.current, msgspec.structs.replace(slot, tries=min(slot.tries + 1, most)))


def failed(slots: Slots) -> Slots:
    """The running slot has failed: without tries left it is bad, where there is another."""
    slot = slots.get(slots.current)
    if slot.health is Health.INDETERMINATE and not slot.tries and fallback(slots):
        return condemned(slots, slots.current, "failed at each try")
    return slots


def condemned(slots: Slots, name: str, why: str) -> Slots:
    """That slot is bad."""
    bad = msgspec.structs.replace(slots.get(name), health=Health.BAD, tries=0, why=why)
    return slots.put(name, bad)


def blessed(slots: Slots, name: str) -> Slots:
    """That slot is good."""
    slot = slots.get(name)
    if slot.health is Health.GOOD:
        return slots
    return slots.put(name, msgspec.structs.replace(slot, health=Health.GOOD, tries=0, why=""))


def staged(slots: Slots, name: str, spec: Spec, tries: int, now: float) -> Slots:
    """A new image in that slot, the one preferred from now on."""
    slots = slots.put(name, Slot(spec, Health.INDETERMINATE, tries, "", now))
    return msgspec.structs.replace(slots, first=name)


def free(slots: Slots) -> str:
    """Where a new image goes: not over the one that was started last."""
    for name in NAMES:
        if slots.get(name).health is Health.EMPTY:
            return name
    return other(slots.current)


def named(slots: Slots | None, spec: Spec, tries: int, now: float) -> Slots:
    """What the config names now, `spec` with its digests: a new image when it never did before."""
    if slots is None:
        return msgspec.structs.replace(staged(Slots(a=Slot()), "a", spec, tries, now), named=spec)
    if slots.named == spec:
        return slots
    slots = msgspec.structs.replace(slots, named=spec)
    for name in NAMES:
        slot = slots.get(name)
        if slot.spec[2:] != spec[2:] or slot.health is Health.EMPTY:
            continue  # other bytes, or another command line
        if slot.health is Health.BAD:
            return staged(slots, name, spec, tries, now)
        renamed = msgspec.structs.replace(slot, spec=spec)
        return msgspec.structs.replace(slots.put(name, renamed), first=name)
    return staged(slots, free(slots), spec, tries, now)


def preferred(slots: Slots, name: str) -> Slots:
    """That slot is started before the other."""
    return slots if slots.first == name else msgspec.structs.replace(slots, first=name)


def describe(slots: Slots) -> dict[str, object]:
    """A vnode's slots for people and programs."""
    return {
        "running": slots.running,
        "next": choose(slots),
        "slots": [as_dict(slots, name) for name in NAMES],
    }


def as_dict(slots: Slots, name: str) -> dict[str, object]:
    """A slot for people and programs."""
    slot = slots.get(name)
    return {
        "slot": name,
        "health": str(slot.health),
        "tries": slot.tries,
        "why": slot.why,
        "staged": slot.staged,
        **slot.spec._asdict(),
    }

# SPDX-License-Identifier: GPL-2.0-or-later
"""Slots: tries, verdicts, falling back, and what a config names anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kexec_restart import slots as slotting
from kexec_restart.images import Spec
from kexec_restart.slots import Health, Slot, Slots

OLD = Spec("/old", "/rd", "", "1" * 64, "2" * 64)
NEW = Spec("/new", "/rd", "", "3" * 64, "2" * 64)


def updated(tries: int = 2) -> Slots:
    """The old image good in a, a new one staged in b."""
    slots = slotting.started(slotting.named(None, OLD, 3, 1.0), "a")
    slots = slotting.blessed(slots, "a")
    return slotting.staged(slots, slotting.free(slots), NEW, tries, 2.0)


def run(slots: Slots) -> tuple[str, Slots]:
    """One start."""
    name = slotting.choose(slots)
    return name, slotting.started(slots, name)


def test_a_new_image_has_its_tries_then_the_other_slot_is_started() -> None:
    slots, order = updated(tries=2), []
    for _ in range(4):
        name, slots = run(slots)
        order.append(name)
        slots = slotting.failed(slots)
    assert order == ["b", "b", "a", "a"]
    assert (slots.b.health, slots.b.why) == (Health.BAD, "failed at each try")
    assert slots.a.health is Health.GOOD


def test_a_healthy_image_is_good_and_its_tries_count_no_more() -> None:
    _, slots = run(updated(tries=1))
    slots = slotting.blessed(slots, slots.current)
    for _ in range(5):
        name, slots = run(slotting.failed(slots))
        assert name == "b"
    assert slots.b.health is Health.GOOD


def test_the_only_image_is_started_whatever_is_said_of_it() -> None:
    slots = slotting.named(None, OLD, 1, 1.0)
    for _ in range(3):
        name, slots = run(slots)
        slots = slotting.failed(slots)
        assert name == "a" and slots.a.health is Health.INDETERMINATE
    slots = slotting.condemned(slots, "a", "no")
    assert run(slots)[0] == "a" and not slotting.fallback(slots)


def test_an_operators_stop_gives_the_try_back() -> None:
    _, slots = run(updated(tries=2))
    assert slots.b.tries == 1
    assert slotting.returned(slots, 2).b.tries == 2
    assert slotting.returned(slotting.returned(slots, 2), 2).b.tries == 2


def test_a_config_that_names_another_image_stages_it_where_nothing_runs() -> None:
    slots = slotting.started(slotting.named(None, OLD, 3, 1.0), "a")
    assert slotting.named(slots, OLD, 3, 2.0) is slots
    slots = slotting.named(slots, NEW, 3, 2.0)
    assert (slots.first, slots.b.spec, slots.a.spec, slots.b.tries) == ("b", NEW, OLD, 3)
    back = slotting.named(slots, OLD, 3, 3.0)
    assert (back.first, back.a, back.b) == ("a", slots.a, slots.b), "it is there already"
    third = slotting.named(slotting.started(slots, "b"), NEW._replace(cmdline="quiet"), 3, 4.0)
    assert third.first == "a" and third.b.spec == NEW


def test_a_bad_image_named_again_gets_new_tries() -> None:
    slots = slotting.condemned(updated(), "b", "no")
    slots = slotting.named(slots, NEW, 3, 5.0)
    assert (slots.b.health, slots.b.tries, slots.b.why) == (Health.INDETERMINATE, 3, "")


CALLS = st.lists(st.sampled_from(["run", "fail", "bless", "give back", "stage", "condemn"]))


@given(CALLS)
def test_something_can_always_be_started_and_never_an_empty_slot(calls: list[str]) -> None:
    slots = slotting.named(None, OLD, 2, 1.0)
    for call in calls:
        if call == "run":
            _, slots = run(slots)
        elif call == "fail":
            slots = slotting.failed(slots)
        elif call == "bless":
            slots = slotting.blessed(slots, slots.current)
        elif call == "give back":
            slots = slotting.returned(slots, 2)
        elif call == "stage":
            running, name = slots.running, slotting.free(slots)
            assert name != running
            slots = slotting.staged(slots, name, NEW, 2, 2.0)
        elif slotting.fallback(slots):
            slots = slotting.condemned(slots, slots.current, "no")
        chosen: Slot = slots.get(slotting.choose(slots))
        assert chosen.health is not Health.EMPTY
        assert all(0 <= slots.get(name).tries <= 2 for name in slotting.NAMES)

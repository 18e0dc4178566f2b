# SPDX-License-Identifier: GPL-2.0-or-later
"""Strategies say what they will do; the staged images are what they were."""

from __future__ import annotations

import pytest

from adeos.abi import Range
from adeos.errors import ImageError, PlacementError
from kexec_restart.images import Spec, Stage
from kexec_restart.strategies import NAMES, Target, after_crash, choose, named

OWN, SPARE = Range(0x20000000, 0x10000000), Range(0x40000000, 0x10000000)


def names(strategy, capture: bool) -> list[str]:
    target = Target(2, "web", [2, 3], OWN, capture)
    return [step.name for step in strategy.steps(target)]


def test_a_spare_region_is_taken_when_a_dump_is_wanted() -> None:
    assert choose(OWN, SPARE, capture=True).name == "spare"
    assert choose(OWN, None, capture=True).name == "kmb"
    assert choose(OWN, SPARE, capture=False).name == "kmb"
    assert choose(OWN, Range(0x40000000, 0x4000000), capture=True).name == "kmb"


def test_steps_name_the_memory_they_touch_and_fence_first() -> None:
    spare = choose(OWN, SPARE, capture=True)
    assert names(spare, True) == ["fenced", "captured", "loaded", "started", "running"]
    assert names(choose(OWN, None, capture=False), False)[1] == "loaded"
    text = {step.name: step.text for step in spare.steps(Target(2, "web", [2, 3], OWN, True))}
    assert "0x20000000" in text["captured"] and "0x40000000" in text["loaded"]
    assert "2, 3" in text["fenced"] and "CPU 2" in text["started"]


@pytest.mark.parametrize(
    ("policy", "name", "last"),
    [
        ("coredump-restart", "spare", "running"),
        ("restart", "kmb", "running"),
        ("coredump-destroy", "manual", "started"),
        ("preserve", "manual", "started"),
    ],
)
def test_what_a_policy_leads_to(policy, name, last) -> None:
    strategy = after_crash(policy, OWN, SPARE)
    steps = names(strategy, policy.startswith("coredump"))
    assert (strategy.name, steps[-1]) == (name, last)
    assert ("captured" in steps) == policy.startswith("coredump")
    assert ("released" in steps) == policy.endswith("destroy")
    assert ("kept" in steps) == (policy == "preserve")


def test_every_name_gives_its_strategy_and_no_other_does() -> None:
    assert [named(name, OWN, SPARE).name for name in NAMES] == list(NAMES)
    assert named("prayer", OWN, SPARE) is None
    with pytest.raises(PlacementError, match="no spare region of 256M"):
        named("spare", OWN, None)


class FakeImage:
    """Stands for adeos.loader.Image where only its digest check matters."""

    kernel_sha256 = initrd_sha256 = "x"

    def __init__(self) -> None:
        self.altered = False
        self.checks = 0

    def verify(self) -> None:
        self.checks += 1
        if self.altered:
            raise ImageError("altered")


def test_an_image_is_read_once_and_an_altered_one_is_forgotten(monkeypatch) -> None:
    made = []

    def read(stage, spec):
        made.append(FakeImage())
        return made[-1]

    monkeypatch.setattr(Stage, "_read", read)
    stage, spec = Stage(), Spec("k", "", "")
    assert stage.get(spec) is stage.take(spec) is made[0]
    made[0].altered = True  # staging counts as the check for the first start only
    with pytest.raises(ImageError):
        stage.take(spec)
    assert stage.take(spec) is made[1]


def test_digests_are_checked_between_any_two_starts(monkeypatch) -> None:
    image = FakeImage()
    monkeypatch.setattr(Stage, "_read", lambda stage, spec: image)
    stage, spec = Stage(), Spec("k", "", "")
    stage.take(spec)  # read this moment
    assert image.checks == 0
    stage.refresh(spec)
    stage.take(spec)  # checked ahead
    assert image.checks == 1
    stage.take(spec)
    assert image.checks == 2

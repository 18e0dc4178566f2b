# SPDX-License-Identifier: GPL-2.0-or-later
"""The detector in virtual time: one cycle is a millisecond here."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.accrual import sigmas
from watchdog.detector import OK, STRIDE, Accrual, BootWatch, Detector, Level, OwnPace

LIMITS = (100, 400, 1000)
PERIOD = 10
FOREVER = 1 << 60


class Beats:
    """Two CPUs that beat every PERIOD in each layer until `dead[(cpu, layer)]`."""

    def __init__(self, ncpus: int = 2) -> None:
        self.ncpus = ncpus
        self.dead: dict[tuple[int, int], int] = {}

    def at(self, now: int) -> list[int]:
        counts = [0] * (STRIDE * self.ncpus)
        for cpu in range(self.ncpus):
            for layer in range(3):
                until = min(now, self.dead.get((cpu, layer), FOREVER))
                counts[cpu * STRIDE + layer] = until // PERIOD + 1
        return counts


def run(beats: Beats, until: int, step: int = PERIOD) -> tuple[int, object]:
    """Observe until something fails; when, and the verdict."""
    detector = Detector(beats.ncpus, LIMITS)
    verdict = OK
    for now in range(0, until, step):
        verdict = detector.observe(beats.at(now), now)
        if verdict.level is Level.FAILED:
            return now, verdict
    return until, verdict


def test_beating_is_well() -> None:
    assert run(Beats(), 5000) == (5000, OK)


def test_each_layer_has_its_reason_and_limit() -> None:
    for layer, reason in enumerate(("irqhang", "softlockup", "hang")):
        beats = Beats()
        for above in range(layer, 3):
            beats.dead[1, above] = 1000
        when, verdict = run(beats, 5000)
        assert (verdict.reason, verdict.cpu, verdict.layer) == (reason, 1, layer)
        assert 1000 + LIMITS[layer] < when <= 1000 + LIMITS[layer] + 2 * PERIOD
        assert verdict.quiet_since == 1000


@pytest.mark.parametrize("patience", [1, 4])
@pytest.mark.parametrize("layer", [0, 1])
def test_what_a_probe_must_prove_is_called_failed_a_little_before_its_limit(
    layer: int, patience: int
) -> None:
    detector, lead = Detector(1, LIMITS, lead=30), 30 if layer == 0 else 0
    detector.patience = patience
    detector.observe([7 if n < layer else 1 for n in range(STRIDE)], 0)
    limit = LIMITS[layer] * patience - lead
    for now, level in ((limit, Level.SUSPECT), (limit + 1, Level.FAILED)):
        counts = [now + 9 if n < layer else 1 for n in range(STRIDE)]
        assert detector.observe(counts, now).level is level


def test_suspicion_comes_at_half_the_limit_and_names_the_layer() -> None:
    beats = Beats(1)
    beats.dead[0, 2] = 1000
    detector = Detector(1, LIMITS)
    levels = {now: detector.observe(beats.at(now), now) for now in range(0, 1900, PERIOD)}
    assert levels[1490].level is Level.OK
    assert levels[1520].level is Level.SUSPECT and levels[1520].reason == "hang"


def test_a_lower_layer_explains_a_higher_one_whose_limit_is_shorter() -> None:
    detector = Detector(1, (1000, 100, 100))
    beats = Beats(1)
    beats.dead = {(0, 0): 0, (0, 1): 0, (0, 2): 0}
    verdict = OK
    for now in range(0, 600, PERIOD):
        verdict = detector.observe(beats.at(now), now)
    assert verdict.level is Level.FAILED and verdict.reason == "irqhang"


def test_an_unarmed_layer_is_not_missed() -> None:
    detector = Detector(1, LIMITS)
    counts = [0] * STRIDE
    for now in range(0, 5000, PERIOD):
        counts[0] += 1  # no kernel thread, no user process: not there yet
        assert detector.observe(counts, now) == OK
    assert detector.armed(0) and not detector.armed(2)


def test_an_adopted_vnode_must_beat_again() -> None:
    detector = Detector(1, LIMITS)
    counts = [7, 7, 0, 0]
    detector.arm(counts, 0)
    assert detector.observe(counts, 90).level is Level.SUSPECT
    assert detector.observe(counts, 110).reason == "irqhang"


def test_counts_that_run_backwards_prove_nothing() -> None:
    detector = Detector(1, LIMITS)
    detector.observe([100, 100, 100, 0], 0)
    verdict = OK
    for now in range(PERIOD, 200, PERIOD):
        verdict = detector.observe([100 - now // PERIOD, 0, 0, 0], now)
    assert verdict.level is Level.FAILED and verdict.layer == 0
    assert detector.backwards > 10


def test_own_absence_is_never_blamed_on_a_vnode() -> None:
    """The watcher stalls for 10 s; so did the host, and with it the vnode."""
    detector, pace = Detector(1, LIMITS), OwnPace(PERIOD)
    counts = [1, 1, 1, 0]
    for now in range(0, 100, PERIOD):
        assert pace.tick(now) == 0
        pace.plan(now + PERIOD)
        counts = [count + 1 for count in counts]
        detector.observe(counts, now)
    absent = pace.tick(10_090)
    assert absent == 10_000 - PERIOD and pace.late == 1
    detector.forgive(absent)
    assert detector.observe(counts, 10_090) == OK
    verdict = OK
    for now in range(10_100, 10_300, PERIOD):
        assert pace.tick(now) == 0
        verdict = detector.observe(counts, now)
    assert verdict.level is Level.FAILED  # but a dead one is found still


def test_a_planned_rest_is_no_absence() -> None:
    pace = OwnPace(PERIOD)
    for now in (0, 50, 1000):
        pace.plan(now)
        assert pace.tick(now + PERIOD) == 0
    assert pace.late == 0


def test_late_ticks_widen_the_limits_for_a_while() -> None:
    pace = OwnPace(PERIOD, recovery=1000)
    step = OwnPace.STEP * PERIOD
    for late in range(6):
        pace.plan(0)
        assert pace.tick(step) == step
        assert pace.doubt == min(late + 2, OwnPace.MOST)
    assert pace.late == 6
    doubts = []
    for now in range(200, 4000, 100):
        pace.plan(now)
        pace.tick(now)
        doubts.append(pace.doubt)
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[0] == 4 and doubts[10] == 3 and doubts[-1] == 1


def test_a_tick_that_was_a_little_late_widens_them_a_little() -> None:
    pace = OwnPace(PERIOD, recovery=1000)
    pace.plan(0)
    pace.tick(PERIOD)
    assert pace.doubt == 1  # that is no absence
    pace.plan(0)
    pace.tick(2 * PERIOD)
    assert pace.doubt == pytest.approx(1.2)
    pace.plan(2000)
    pace.tick(2000)
    assert pace.doubt == 1


@pytest.mark.parametrize("layer", range(3))
@pytest.mark.parametrize("died", [1000, 1004, 1333])
def test_looks_are_due_seldom_and_yet_in_time(layer: int, died: int) -> None:
    """Looking only when due finds what looking at each tick finds, as soon."""
    detector, beats = Detector(1, LIMITS), Beats(1)
    for above in range(layer, 3):
        beats.dead[0, above] = died
    now, looks, verdict = 0, 0, OK
    while verdict.level is not Level.FAILED:
        stamps = [(count - 1) * PERIOD for count in beats.at(now)]
        verdict = detector.observe(beats.at(now), now, stamps)
        looks += now < died
        now = max(detector.due + 1, now + 1)
    last = died // PERIOD * PERIOD
    assert verdict.layer == layer and verdict.quiet_since == last
    assert now - 2 == last + LIMITS[layer]
    assert looks < 40  # of 100 ticks and more


def test_a_lying_stamp_wins_one_look() -> None:
    detector = Detector(1, LIMITS)
    detector.observe([1, 0, 0, 0], 0)
    detector.observe([2, 0, 0, 0], 40, [1 << 63, 0, 0, 0])  # in the future
    assert detector.due == 90
    detector.observe([3, 0, 0, 0], 60, [5, 0, 0, 0])  # before the last look
    assert detector.due == 110
    detector.observe([4, 0, 0, 0], 80, [70, 0, 0, 0])
    assert detector.due == 120


def test_limits_that_follow_the_beats() -> None:
    """Beats each 10 with little jitter: found long before the fixed limit, never while alive."""
    detector = Detector(1, (1000, 1000, 1000), Accrual(phi=8.0, pause=20))
    gaps = random.Random(5)
    now = count = 0
    for _ in range(400):
        now += gaps.randrange(8, 13)
        count += 1
        assert detector.observe([count] * STRIDE, now, [now] * STRIDE) == OK
    verdict, quiet = OK, now
    while verdict.level is not Level.FAILED:
        now += 1
        verdict = detector.observe([count] * STRIDE, now)
    assert 35 < now - quiet < 60 and verdict.reason == "irqhang"


def test_limits_never_exceed_the_fixed_ones() -> None:
    detector = Detector(1, (100, 100, 100), Accrual(phi=50.0, pause=1000))
    for beat in range(300):
        detector.observe([beat] * STRIDE, beat * 40)
    assert detector.observe([299] * STRIDE, 299 * 40 + 101).level is Level.FAILED


def test_sigmas_are_those_of_the_normal_distribution() -> None:
    """Tables: one in ten beyond 1.2816 deviations, one in a thousand beyond 3.0902."""
    assert sigmas(1) == pytest.approx(1.2816, abs=1e-3)
    assert sigmas(3) == pytest.approx(3.0902, abs=1e-3)
    assert sigmas(8) == pytest.approx(5.6120, abs=1e-3)


def test_a_cpu_that_stood_still_is_excused_in_its_upper_layers_too() -> None:
    """Its host took it away for longer than the sched limit; it schedules a tick later."""
    detector = Detector(1, (400, 100, 300))
    counts = [1, 1, 1, 0]
    for now in range(0, 360, PERIOD):
        detector.observe(counts, now)
    assert detector.silent() == [0]
    counts[0] += 1
    assert detector.observe(counts, 360) == OK and detector.silent() == []
    verdict = OK
    for now in range(370, 500, PERIOD):
        counts[0] += 1
        verdict = detector.observe(counts, now)
    assert verdict.reason == "softlockup"  # but from then on it must


def test_patience_stretches_every_limit() -> None:
    detector = Detector(1, LIMITS)
    detector.patience = 4
    detector.observe([1, 1, 1, 0], 0)
    assert detector.observe([1, 1, 1, 0], 390).level is Level.SUSPECT
    assert detector.observe([1, 1, 1, 0], 410).level is Level.FAILED


WORDS = st.lists(st.integers(0, (1 << 64) - 1), min_size=8, max_size=8)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=20), st.booleans())
def test_any_bridge_gives_a_verdict(readings: list[tuple[list[int], list[int]]], phi: bool) -> None:
    detector = Detector(2, LIMITS, Accrual(8.0, 0) if phi else None)
    for now, (counts, stamps) in enumerate(readings):
        assert detector.observe(counts, now * 50, stamps).level in Level
        assert detector.due >= 0


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=60),
    st.integers(0, 2),
)
def test_a_live_vnode_is_never_failed_however_late_the_ticks(gaps: list[int], layer: int) -> None:
    """Whatever the watcher's own gaps: beats continue throughout, so no verdict may be failed."""
    beats, detector, pace, now = Beats(1), Detector(1, LIMITS), OwnPace(PERIOD), 0
    for gap in gaps:
        pace.plan(now + PERIOD)
        now += gap
        absent = pace.tick(now)
        if absent:
            detector.forgive(absent)
        assert detector.observe(beats.at(now), now).level is not Level.FAILED


def test_boot_watch() -> None:
    boot = BootWatch(0, 1000)
    assert not boot.failed(1000) and boot.failed(1001)
    boot.vital(5, 900)
    boot.vital(6, 990)
    assert not boot.failed(1100)  # the kernel lives, user space is slow
    assert boot.failed(1400)  # and then it stopped
    boot.vital(7, 1990)
    assert boot.failed(2001)  # no longer than twice


def test_jiffies_that_nobody_read_did_not_stand_still() -> None:
    boot = BootWatch(0, 1000)
    boot.vital(5, 100)
    boot.vital(6, 200)
    assert boot.still == 0  # whenever this is asked
    boot.vital(6, 700)
    assert boot.still == 500
    boot.vital(7, 5000)
    assert boot.still == 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor by tables, and its three promises by a state machine."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kexec_restart import slots as slotting
from kexec_restart.budget import SECOND
from kexec_restart.images import Spec
from kexec_restart.slots import Health, Slots
from watchdog import actions, events, supervisor
from watchdog.config import Restart
from watchdog.states import IDLE, LIVE, Fault, State
from watchdog.supervisor import RULES, TABLE, Vnode, refusal, restarts_left, step


def fault(reason: str = "panic", incarnation: int = 1, crash: bool = True) -> Fault:
    return Fault(reason, incarnation, cpu=0, crash=crash, fault_tsc=1, reported_tsc=2, seen_tsc=3)


def feed(vnode: Vnode, *todo: object, now: int = 0) -> tuple[Vnode, list[str]]:
    """Feed events and return the vnode and the names of all actions."""
    names: list[str] = []
    for event in todo:
        vnode, wanted = step(vnode, event, now)
        for action in wanted:
            text = type(action).__name__
            if isinstance(action, actions.FinishIncident):
                text += f":{action.outcome}"
            if isinstance(action, actions.Fence) and action.gather:
                text += f":{action.gather}"
            names.append(text)
    return vnode, names


UP = (
    events.StartRequested(),
    events.Loaded(1),
    events.Started(1),
    events.Ready(1),
)
AGAIN = (events.Loaded(2), events.Started(2), events.Ready(2))


def running(**policy: object) -> Vnode:
    vnode, _ = feed(Vnode(policy=Restart(**policy)), *UP)
    assert vnode.state is State.RUNNING
    return vnode


CRASH = events.Faulted(fault())
HUNG = events.Faulted(fault("irqhang"))
SILENT = events.Silent(fault("irqhang"))
HALT = events.Faulted(fault("halt", crash=False))
REBOOT = events.Faulted(fault("reboot", crash=False))
FENCED = events.Fenced(1)

LIVES = [
    # policy, events, final state, actions
    (
        {},
        (CRASH, FENCED, events.Captured(1), *AGAIN),
        State.RUNNING,
        "Fence:record OpenIncident Capture Load Start FinishIncident:restarted",
    ),
    (
        {},
        (HUNG, FENCED, events.CaptureFailed(1, "disk full"), *AGAIN),
        State.RUNNING,
        "Fence:nmi OpenIncident Capture Load Start FinishIncident:restarted",
    ),
    (
        {"on_crash": "restart"},
        (CRASH, FENCED, *AGAIN),
        State.RUNNING,
        "Fence:record OpenIncident Load Start FinishIncident:restarted",
    ),
    (
        {"on_crash": "coredump-destroy"},
        (CRASH, FENCED, events.Captured(1)),
        State.STOPPED,
        "Fence:record OpenIncident Capture FinishIncident:destroyed Release",
    ),
    (
        {"on_crash": "destroy"},
        (CRASH, FENCED),
        State.STOPPED,
        "Fence:record OpenIncident FinishIncident:destroyed Release",
    ),
    (
        {"on_crash": "preserve"},
        (CRASH, FENCED),
        State.FENCED,
        "Fence:record OpenIncident FinishIncident:preserved",
    ),
    (
        {},
        (SILENT, SILENT, events.Probed(1, (0,)), FENCED, events.Captured(1), *AGAIN),
        State.RUNNING,
        "Probe Fence:probe OpenIncident Capture Load Start FinishIncident:restarted",
    ),
    ({}, (SILENT, events.Probed(1, (0,), moving=True)), State.RUNNING, "Probe"),
    (
        {},
        (SILENT, events.StopRequested(), events.Probed(1), FENCED),
        State.STOPPED,
        "Probe Fence Release",
    ),
    (
        {},
        (events.Silent(fault("softlockup")), FENCED, events.Captured(1), *AGAIN),
        State.RUNNING,
        "Fence:nmi OpenIncident Capture Load Start FinishIncident:restarted",
    ),
    ({}, (HALT, FENCED), State.HALTED, "Fence OpenIncident FinishIncident:halted Release"),
    (
        {"on_halt": "restart"},
        (HALT, FENCED, *AGAIN),
        State.RUNNING,
        "Fence OpenIncident Load Start FinishIncident:restarted",
    ),
    (
        {},
        (REBOOT, FENCED, *AGAIN),
        State.RUNNING,
        "Fence OpenIncident Load Start FinishIncident:restarted",
    ),
    (
        {"on_reboot": "destroy"},
        (REBOOT, FENCED),
        State.HALTED,
        "Fence OpenIncident FinishIncident:halted Release",
    ),
    (
        {},
        (CRASH, events.FenceFailed(1, "CPU 3")),
        State.QUARANTINED,
        "Fence:record OpenIncident FinishIncident:fence failed",
    ),
    ({}, (events.StopRequested(), FENCED), State.STOPPED, "Fence Release"),
    (
        {},
        (CRASH, events.StopRequested(), FENCED, events.Captured(1)),
        State.STOPPED,
        "Fence:record OpenIncident Capture FinishIncident:stopped Release",
    ),
    ({}, (events.RestartRequested(), FENCED, *AGAIN), State.RUNNING, "Fence Load Start"),
    (
        {},
        (CRASH, FENCED, events.Captured(1), events.LoadFailed(2, "bad digest")),
        State.QUARANTINED,
        "Fence:record OpenIncident Capture Load FinishIncident:load failed",
    ),
]


@pytest.mark.parametrize(("policy", "todo", "state", "wanted"), LIVES)
def test_lives(policy: dict[str, object], todo: tuple, state: State, wanted: str) -> None:
    vnode, names = feed(running(**policy), *todo)
    assert vnode.state is state
    assert " ".join(names) == wanted.replace("fence failed", "fence failed")
    assert not vnode.incident


def test_one_fault_reported_thrice_gives_one_incident() -> None:
    vnode, names = feed(running(), CRASH, CRASH, HUNG, FENCED, FENCED, CRASH, events.Captured(1))
    assert names.count("OpenIncident") == 1
    assert names.count("Load") == 1
    assert vnode.incidents == 1


def test_a_probed_vnode_is_suspect_and_its_beats_are_not_judged_meanwhile() -> None:
    vnode, _ = feed(running(), SILENT)
    assert (vnode.state, vnode.reason) == (State.SUSPECT, "irqhang")
    late = (events.Silent(fault("softlockup")), events.Suspected(1, "hang"), events.Recovered(1))
    assert feed(vnode, *late) == (vnode, [])
    vnode, _ = feed(vnode, events.Probed(1, (0,), moving=True))
    assert (vnode.state, vnode.reason, vnode.false_alarms) == (State.RUNNING, "", 1)
    assert vnode.incidents == 0 and vnode.running_since is not None


def test_a_report_wins_over_a_probe() -> None:
    vnode, names = feed(running(), SILENT, CRASH, events.Probed(1, (0,), moving=True), FENCED)
    assert names == ["Probe", "Fence:record", "OpenIncident", "Capture"]
    assert (vnode.reason, vnode.false_alarms) == ("panic", 0)


def test_a_probe_while_it_boots_leaves_it_booting() -> None:
    vnode, _ = feed(Vnode(), *UP[:3], SILENT)
    assert vnode.state is State.BOOTING
    vnode, _ = feed(vnode, events.Probed(1, (), moving=True))
    assert vnode.state is State.BOOTING and vnode.probe is None


def test_words_of_a_stale_incarnation_count_for_nothing() -> None:
    vnode, _ = feed(running(), CRASH, FENCED, events.Captured(1), *AGAIN)
    for stale in (
        CRASH,
        HALT,
        SILENT,
        events.Probed(1),
        events.Ready(1),
        events.Suspected(1, "irq"),
        FENCED,
    ):
        assert step(vnode, stale, 5) == (vnode, ())


def test_failing_again_while_booting_closes_the_first_incident() -> None:
    vnode, names = feed(
        running(),
        CRASH,
        FENCED,
        events.Captured(1),
        events.Loaded(2),
        events.Started(2),
        events.Faulted(fault("boot", 2)),
        events.Fenced(2),
    )
    assert names[-3:] == ["FinishIncident:failed again", "OpenIncident", "Capture"]
    assert vnode.incidents == 2


def test_budget_then_back_off_then_quarantine_then_force() -> None:
    vnode = running(intensity=1, backoff_s=10, attempts=1)
    vnode, _ = feed(vnode, CRASH, FENCED, events.Captured(1), *AGAIN)
    second = (events.Faulted(fault("panic", 2)), events.Fenced(2), events.Captured(2))
    vnode, names = feed(vnode, *second)
    assert names[-1] == "Wait" and vnode.state is State.RESTARTING
    assert vnode.wait == 10 * SECOND
    vnode, names = feed(vnode, events.DelayElapsed(vnode.wait + 1))
    assert names == []  # not the wait that is awaited
    vnode, names = feed(vnode, events.DelayElapsed(vnode.wait))
    assert names == ["Load"]
    vnode, _ = feed(vnode, events.Loaded(3), events.Started(3), events.Ready(3))
    third = (events.Faulted(fault("panic", 3)), events.Fenced(3), events.Captured(3))
    vnode, names = feed(vnode, *third, now=11 * SECOND)
    assert vnode.state is State.QUARANTINED and names[-1] == "FinishIncident:quarantined"
    assert "quarantined" in refusal(vnode, events.StartRequested())
    assert step(vnode, events.StartRequested(), 0) == (vnode, ())
    vnode, names = feed(vnode, events.StartRequested(force=True))
    assert names == ["Load"] and vnode.state is State.LOADING


def test_time_of_running_healthy_clears_the_account() -> None:
    vnode = running(intensity=1, healthy_s=100)
    vnode, _ = feed(vnode, CRASH, FENCED, events.Captured(1), *AGAIN)
    later = (events.Faulted(fault("panic", 2)), events.Fenced(2), events.Captured(2))
    _, names = feed(vnode, *later, now=101 * SECOND)
    assert names[-1] == "Load"


def images(tries: int = 3) -> Slots:
    """A good image in slot a, a new one in b."""
    old, new = (Spec(f"/{name}", "", "", name * 64, "0" * 64) for name in "ab")
    slots = slotting.blessed(slotting.started(slotting.named(None, old, 3, 1.0), "a"), "a")
    return slotting.staged(slots, "b", new, tries, 2.0)


def crash_loop(vnode: Vnode, starts: int) -> tuple[Vnode, list[tuple[int, str]]]:
    """Crash each incarnation at once, with dumps of 40 s; (delay in s, slot) of each restart."""
    seen, now = [], 0
    for _ in range(starts):
        number = vnode.incarnation
        vnode, _ = feed(vnode, events.Ready(number), now=now)
        crash = events.Faulted(fault("panic", number))
        vnode, _ = feed(vnode, crash, events.Fenced(number), now=now)
        now += 40 * SECOND
        vnode, wanted = step(vnode, events.Captured(number, 40 * SECOND), now)
        delay = 0
        if isinstance(wanted[-1], actions.Wait):
            delay = wanted[-1].until - now
            now += delay
            vnode, wanted = step(vnode, events.DelayElapsed(now), now)
        if not isinstance(wanted[-1], actions.Load):
            return vnode, seen
        seen.append((delay // SECOND, wanted[-1].slot))
        number = vnode.incarnation
        vnode, _ = feed(vnode, events.Loaded(number), events.Started(number), now=now)
    return vnode, seen


LOOP = Restart(intensity=2, backoff_s=10, backoff_max_s=25, attempts=3)


def test_a_crash_looping_image_waits_falls_back_and_ends_in_quarantine() -> None:
    vnode, _ = feed(Vnode(policy=LOOP, slots=images(tries=99)), events.StartRequested())
    vnode, _ = feed(vnode, events.Loaded(1), events.Started(1))
    vnode, seen = crash_loop(vnode, 99)
    delays = (0, 0, 10, 20, 25)
    assert seen == [(delay, slot) for slot in "ba" for delay in delays]
    assert vnode.state is State.QUARANTINED and vnode.slots.b.health is Health.BAD
    assert vnode.slots.b.why == "restarts did not help"
    assert "quarantined" in refusal(vnode, events.StartRequested())
    vnode, names = feed(vnode, events.ClearRequested())
    assert names == ["Release"] and vnode.state is State.STOPPED
    vnode, _ = feed(vnode, events.StartRequested())
    number = vnode.incarnation
    vnode, _ = feed(vnode, events.Loaded(number), events.Started(number))
    assert crash_loop(vnode, 2)[1] == [(0, "a"), (0, "a")], "a fresh budget"


def test_a_new_image_that_fails_at_each_try_gives_way_to_the_good_one() -> None:
    vnode, _ = feed(Vnode(slots=images(tries=2)), events.StartRequested())
    vnode, _ = feed(vnode, events.Loaded(1), events.Started(1))
    vnode, seen = crash_loop(vnode, 3)
    assert [slot for _, slot in seen] == ["b", "a", "a"]
    assert vnode.slots.b.health is Health.BAD and vnode.state is State.BOOTING


def test_a_healthy_time_makes_the_image_good_and_the_account_fresh() -> None:
    vnode, _ = feed(Vnode(policy=LOOP, slots=images()), events.StartRequested())
    vnode, _ = feed(vnode, events.Loaded(1), events.Started(1), events.Healthy(1))
    assert vnode.slots.b.health is Health.INDETERMINATE, "it boots still"
    vnode, _ = crash_loop(vnode, 2)
    vnode, _ = feed(vnode, events.Ready(3), events.Healthy(2))
    assert vnode.slots.b.health is Health.INDETERMINATE, "another's"
    vnode, _ = feed(vnode, events.Healthy(3))
    assert vnode.slots.b.health is Health.GOOD and vnode.account.restarts == ()


def test_an_altered_image_is_refused_and_the_other_slot_started() -> None:
    vnode, _ = feed(Vnode(slots=images()), events.StartRequested())
    vnode, wanted = step(vnode, events.ImageRefused(1, "altered"), 0)
    assert wanted == (actions.Load(2, "a"),) and vnode.state is State.LOADING
    assert (vnode.slots.b.health, vnode.slots.b.why) == (Health.BAD, "altered")
    vnode, names = feed(vnode, events.ImageRefused(2, "altered too"))
    assert (vnode.state, vnode.reason) == (State.OFFLINE, "altered too")
    assert names == ["Release"]


def test_an_operators_restart_takes_no_try() -> None:
    vnode, _ = feed(Vnode(slots=images(tries=1)), events.StartRequested())
    vnode, _ = feed(vnode, events.Loaded(1), events.Started(1), events.Ready(1))
    vnode, _ = feed(vnode, events.RestartRequested(), FENCED)
    assert vnode.slots.running == "b"


def test_only_a_quarantined_vnode_is_cleared() -> None:
    assert refusal(running(), events.ClearRequested()).startswith("is running; only")


def test_stop_during_back_off_releases_at_once() -> None:
    vnode = running(intensity=0, backoff_s=10)
    vnode, _ = feed(vnode, CRASH, FENCED, events.Captured(1))
    vnode, names = feed(vnode, events.StopRequested(), events.DelayElapsed(10 * SECOND))
    assert names == ["FinishIncident:stopped", "Release"] and vnode.state is State.STOPPED


def test_a_fenced_vnode_keeps_its_memory_until_an_operator_wants_otherwise() -> None:
    vnode, names = feed(running(), events.FenceRequested(), CRASH, FENCED)
    assert names == ["Fence"] and vnode.fenced
    assert (vnode.state, vnode.reason) == (State.FENCED, "operator")
    assert refusal(vnode, events.FenceRequested()).startswith("is fenced; only")
    assert feed(vnode, events.StopRequested())[1] == ["Release"]
    vnode, names = feed(vnode, events.StartRequested(), *AGAIN)
    assert names == ["Load", "Start"] and vnode.state is State.RUNNING


def test_a_fence_of_a_vnode_that_boots_after_a_crash_closes_its_incident() -> None:
    vnode, _ = feed(running(), CRASH, FENCED, events.Captured(1), *AGAIN[:2])
    vnode, names = feed(vnode, events.FenceRequested(), events.Fenced(2))
    assert names == ["Fence", "FinishIncident:fenced"]
    assert refusal(vnode, events.StartRequested()) == ""


def test_a_fence_that_fails_is_for_an_operator() -> None:
    vnode, _ = feed(running(), events.FenceRequested(), events.FenceFailed(1, "no answer"))
    assert (vnode.state, vnode.fenced) == (State.QUARANTINED, False)


def test_restarts_left() -> None:
    vnode = running(intensity=2, attempts=1, backoff_s=10, healthy_s=600)
    assert restarts_left(vnode, 0) == 3
    vnode, _ = feed(vnode, CRASH, FENCED, events.Captured(1), *AGAIN)
    assert restarts_left(vnode, 0) == 2
    assert restarts_left(vnode, 60 * SECOND) == 3
    assert restarts_left(running(on_crash="preserve"), 0) is None


def test_refusals_name_the_state() -> None:
    assert refusal(running(), events.StartRequested()) == "is already running"
    crashed, _ = feed(running(), CRASH)
    assert "crashed" in refusal(crashed, events.StartRequested())
    assert "crashed" in refusal(crashed, events.RestartRequested())
    assert refusal(running(), events.StopRequested()) == ""


def test_rules_are_unambiguous_and_every_state_is_reached() -> None:
    assert len(TABLE) == sum(len(rule.states) for rule in RULES)
    reached = {state for rule in RULES for state in rule.to}
    assert reached == set(State)


class Life(RuleBasedStateMachine):
    """A vnode on a machine that carries actions out in order, slowly, and sometimes fails."""

    @initialize(
        on_crash=st.sampled_from(
            ["coredump-restart", "restart", "coredump-destroy", "destroy", "preserve"]
        ),
        on_halt=st.sampled_from(["destroy", "restart"]),
        intensity=st.integers(0, 3),
        attempts=st.integers(0, 2),
        delay=st.sampled_from([0, 5]),
    )
    def begin(self, on_crash: str, on_halt: str, intensity: int, attempts: int, delay: int) -> None:
        self.vnode = Vnode(
            slots=images(tries=2),
            policy=Restart(
                on_crash=on_crash,
                on_halt=on_halt,
                on_reboot=on_halt,
                intensity=intensity,
                attempts=attempts,
                delay_ms=delay,
            ),
        )
        self.now = 1
        self.queue: list[actions.Action] = []
        self.waits: list[int] = []
        self.parked = True
        self.incarnation = 0  # of the code on the CPUs
        self.opened: list[Fault] = []
        self.open = 0
        self.faults: list[Fault] = []

    def post(self, event: events.Event) -> None:
        before = self.vnode
        self.vnode, wanted = step(self.vnode, event, self.now)
        self.queue.extend(wanted)
        if self.vnode.state is not before.state:
            rule = TABLE[(before.state, type(event))]
            assert self.vnode.state in rule.to, (before.state, event, self.vnode.state)

    @rule(seconds=st.integers(1, 700))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND
        for until in [w for w in self.waits if w <= self.now]:
            self.waits.remove(until)
            self.post(events.DelayElapsed(until))

    @rule(which=st.sampled_from(["start", "force", "stop", "restart", "fence", "clear"]))
    def operator(self, which: str) -> None:
        self.post(
            {
                "start": events.StartRequested(),
                "force": events.StartRequested(force=True),
                "stop": events.StopRequested(),
                "restart": events.RestartRequested(),
                "fence": events.FenceRequested(),
                "clear": events.ClearRequested(),
            }[which]
        )

    @precondition(lambda self: not self.parked)
    @rule(reason=st.sampled_from(["panic", "irqhang", "hang", "halt", "reboot"]))
    def fault(self, reason: str) -> None:
        crash = reason not in ("halt", "reboot")
        one = Fault(reason, self.incarnation, crash=crash, seen_tsc=self.now)
        self.faults.append(one)
        self.post(events.Faulted(one))

    @precondition(lambda self: not self.parked)
    @rule(reason=st.sampled_from(["irqhang", "softlockup"]))
    def silence(self, reason: str) -> None:
        one = Fault(reason, self.incarnation, seen_tsc=self.now)
        self.faults.append(one)
        self.post(events.Silent(one))

    @rule(incarnation=st.integers(0, 5), seed=st.integers(0, 9))
    def stale_words(self, incarnation: int, seed: int) -> None:
        if incarnation >= self.vnode.incarnation:
            return
        kinds = [
            events.Ready,
            events.Probed,
            events.Fenced,
            events.Captured,
            events.Loaded,
            events.Started,
        ]
        before = self.vnode
        self.post(random.Random(seed).choice(kinds)(incarnation))
        assert self.vnode == before

    @precondition(lambda self: not self.parked and self.vnode.state is State.BOOTING)
    @rule()
    def user_beat(self) -> None:
        self.post(events.Ready(self.incarnation))

    @precondition(lambda self: self.vnode.state in LIVE)
    @rule()
    def healthy(self) -> None:
        self.post(events.Healthy(self.incarnation))

    @precondition(lambda self: self.queue)
    @rule(fails=st.sampled_from([False, False, False, True]))
    def carry_out(self, fails: bool) -> None:
        action = self.queue.pop(0)
        match action:
            case actions.Probe(one):
                alarms = self.vnode.false_alarms
                self.post(events.Probed(one.incarnation, moving=fails))
                assert self.vnode.probe is None
                assert self.vnode.false_alarms <= alarms + fails
            case actions.Fence(n):
                self.parked = self.parked or not fails
                self.post(events.FenceFailed(n) if fails else events.Fenced(n))
            case actions.Capture(n):
                assert self.parked, "memory read for a dump without a fence"
                assert self.open == 1, "captured before the incident was recorded"
                self.post(events.CaptureFailed(n) if fails else events.Captured(n, SECOND))
            case actions.Load(n, slot):
                assert self.parked, "memory written without a fence"
                assert slot == self.vnode.slots.running or n != self.vnode.incarnation
                failure = events.ImageRefused if n % 2 else events.LoadFailed
                self.post(failure(n) if fails else events.Loaded(n))
            case actions.Start(n):
                assert self.parked, "started twice without a fence"
                if fails:
                    self.post(events.StartFailed(n))
                else:
                    self.parked = False
                    self.incarnation = n
                    self.post(events.Started(n))
            case actions.OpenIncident(one):
                assert one in self.faults and one not in self.opened
                assert self.open == 0
                self.opened.append(one)
                self.open = 1
            case actions.FinishIncident():
                assert self.open == 1
                self.open = 0
            case actions.Wait(until):
                self.waits.append(until)
            case actions.Release():
                assert self.parked, "given back while its CPUs run"

    @invariant()
    def never_stuck(self) -> None:
        """With nothing in progress a vnode is live, idle, or waits for its back-off."""
        if not hasattr(self, "vnode") or self.queue:
            return
        vnode = self.vnode
        waiting = vnode.state is State.RESTARTING and vnode.wait in self.waits
        assert vnode.state in LIVE | IDLE or waiting, vnode
        assert vnode.probe is None, "nobody will ever answer it"
        assert vnode.fenced <= self.parked, "believes in a fence that is not"
        if vnode.state in IDLE:
            assert not vnode.incident, vnode
        if vnode.state in LIVE:
            assert not self.parked


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)


def test_supervisor_has_no_clock_and_no_io() -> None:
    """The core imports nothing that could block or tell the time."""
    names = set(vars(supervisor))
    assert not names & {"time", "os", "asyncio", "socket", "threading"}

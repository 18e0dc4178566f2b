# SPDX-License-Identifier: GPL-2.0-or-later
"""Warm restarts by the real daemon on the fake machine: frozen, resumed, never from a bad image."""

from __future__ import annotations

import asyncio
import copy
import threading
import time

import pytest

from adeos import abi
from adeos.bridge import RootBridge
from adeos.errors import FenceError, WarmImageError
from watchdog import dumps, warm
from watchdog.errors import WatchdogError

STANDBY = 'strategy = "standby"\nresume_ms = 1000\n'
WARM = 'strategy = "warm"\nresume_ms = 1000\n'


@pytest.fixture
def warm_rig(make_rig, rig_tools):
    def make(restart):
        rig = make_rig(rig_tools.vnode_text(1, "one", [1], restart)).start()
        rig.wait(1)
        return rig

    return make


def ready(rig, incarnation):
    """The vnode's user space says so."""
    rig.wait(1, incarnation=incarnation)
    rig.machine.vnodes[1].declare_ready()


def word(rig):
    return RootBridge.open(rig.machine).status(1)


def images(rig):
    return {one["role"]: one for one in rig.client.call("images")["images"]}


def frozen(rig):
    """It has an image, and runs again: a vnode that stands still for its image cannot crash."""
    rig.until(lambda: "running" in images(rig), "an image")

    def goes_on():
        vnode = rig.machine.vnodes[1]
        state = abi.WARM.get(vnode.view, abi.VN_BR_WARM, "state")
        return vnode.alive and state == abi.WarmState.RESUMED

    rig.until(goes_on, "the vnode goes on")


@pytest.fixture
def standby(warm_rig):
    """A vnode that runs in a second region, with one that stands by."""
    rig = warm_rig(STANDBY)
    ready(rig, 1)
    ready(rig, 2)
    rig.until(lambda: set(images(rig)) == {"running", "standby"}, "two images")
    rig.until(lambda: word(rig).image_tsc and word(rig).standby_tsc, "both published")
    rig.wait(1, incarnation=2)
    return rig


def crash(rig):
    last = word(rig).incarnation
    rig.machine.vnodes[1].crash()
    rig.wait(1, incarnation=last + 1)
    return rig.finished(1)[0]


def test_the_first_kernel_stands_by_and_the_second_serves(standby):
    status = word(standby)
    assert status.way is abi.Way.COLD
    assert status.image_tsc and status.standby_tsc
    both = images(standby)
    assert both["standby"]["region"] != both["running"]["region"] == f"{status.region_base:#x}"


def test_a_crash_is_answered_by_the_standby_and_its_region_stands_by_next(standby):
    before = word(standby).region_base
    incident = crash(standby)
    after = word(standby)
    assert (after.way, after.incarnation) == (abi.Way.STANDBY, 3)
    assert after.region_base != before
    assert (incident.restart, incident.outcome) == ("standby", "restarted")
    assert incident.image_age > 0
    assert list(incident.stamps)[-3:] == ["restored", "started", "running"]
    standby.until(lambda: "standby" in images(standby), "the failed region stands by")
    assert images(standby)["standby"]["region"] == f"{before:#x}"
    assert standby.machine.starts == [1, 1]  # both before the crash
    bridge = standby.machine.raw(before + abi.VN_OFF_BRIDGE, abi.VN_BRIDGE_SIZE)
    assert bytes(bridge) == bytes(abi.VN_BRIDGE_SIZE)  # nothing of the kernel that failed


def test_warm_copies_the_image_back_into_its_own_region(warm_rig):
    rig = warm_rig(WARM)
    ready(rig, 1)
    frozen(rig)
    region = word(rig).region_base
    page = rig.machine.raw(region + 0x110000, 4096)
    page[:] = b"\xff" * 4096
    incident = crash(rig)
    assert (incident.restart, word(rig).region_base) == ("warm", region)
    assert word(rig).way is abi.Way.WARM
    assert bytes(page) == bytes(4096)  # as it was when the fake kernel froze


def test_cold_is_the_default_and_keeps_nothing(warm_rig):
    rig = warm_rig("")
    ready(rig, 1)
    incident = crash(rig)
    assert (incident.restart, incident.image_age) == ("spare", None)
    assert not images(rig)


def test_a_standby_that_does_not_come_back_is_booted(standby):
    standby.machine.resumes = False
    standby.machine.vnodes[1].crash()
    standby.wait(1, incarnation=4)
    assert word(standby).way is abi.Way.COLD
    assert not images(standby)
    found = {one.reason: one for one in standby.finished(2)}
    outcomes = {reason: one.outcome for reason, one in found.items()}
    assert outcomes == {"panic": "failed again", "boot": "restarted"}
    assert "started" in found["panic"].stamps  # they are its own, not those of the next fault


def test_a_cpu_that_does_not_take_its_resume_is_parked_and_booted(standby):
    def refuse(vnode, **registers):
        raise FenceError(f"vnode {vnode}: its boot CPU does not start")

    standby.machine.resume = refuse
    incident = crash(standby)
    assert (incident.restart, incident.image_age) == ("kmb", None)
    assert word(standby).way is abi.Way.COLD
    assert not images(standby)


def test_failures_soon_after_each_resume_end_in_a_boot(warm_rig):
    rig = warm_rig(WARM + "quick = 2\n")
    ready(rig, 1)
    frozen(rig)
    ways = []
    for _ in range(3):
        crash(rig)
        ways.append(word(rig).way)
    assert ways == [abi.Way.WARM, abi.Way.WARM, abi.Way.COLD]
    assert not images(rig)


def test_a_standby_is_made_anew_after_the_images_were_dropped(make_rig, rig_tools, monkeypatch):
    """The region it needs is a dump still, when the vnode is ready again."""
    written = threading.Event()
    worker = dumps.Dumps._worker

    async def slow(self, incident):
        while not written.is_set():
            await asyncio.sleep(0.01)
        await worker(self, incident)

    text = rig_tools.vnode_text(1, "one", [1], STANDBY + "quick = 1\n")
    size = 2 * abi.VN_REGION_MIN
    two_regions = abi.Range(0x20000000, abi.VN_ROOT_SIZE + 2 * (size + abi.VN_REGION_MIN))
    rig = make_rig(
        text.replace('"64M"', f'"{size >> 20}M"'),
        rig_tools.LastingMachine(ranges=(two_regions,)),
    ).start()
    ready(rig, 1)
    ready(rig, 2)
    rig.until(lambda: set(images(rig)) == {"running", "standby"}, "two images")
    frozen(rig)
    written.set()
    crash(rig)
    rig.until(lambda: set(images(rig)) == {"running", "standby"}, "two images again")
    monkeypatch.setattr(dumps.Dumps, "_worker", slow)
    written.clear()
    rig.machine.vnodes[1].crash()
    ready(rig, 4)
    assert word(rig).way is abi.Way.COLD
    time.sleep(0.2)
    assert not images(rig)
    written.set()
    ready(rig, 5)
    rig.until(lambda: set(images(rig)) == {"running", "standby"}, "a standby anew")


def test_a_check_that_ends_too_late_gives_up_no_image_but_its_own(standby, monkeypatch):
    """The vnode was stopped and started meanwhile: in the same place there is another image."""
    checked = []

    def late(self, kept):
        if not checked:
            self.store.keep(copy.copy(kept))
            checked.append(kept)
            raise WarmImageError("the image is damaged", "freeze the vnode anew")
        checked.append(kept)
        kept.checked = True

    standby.until(lambda: set(images(standby)) == {"running", "standby"}, "two images")
    monkeypatch.setattr(warm.Warm, "_check", late)
    before = images(standby)
    standby.client.call("restart", vnode=1)
    ready(standby, 3)
    standby.until(lambda: len(checked) > 1, "two checks")
    after = images(standby)
    assert {one["image"] for one in after.values()} == {one["image"] for one in before.values()}


@pytest.mark.parametrize("offset", [9, 0x100, 0x3000])
def test_a_damaged_image_is_not_used(warm_rig, offset):
    """Header, map and pages; the pages are checked before a use when idle time did not do it."""
    rig = warm_rig(WARM)
    ready(rig, 1)
    frozen(rig)
    crash(rig)
    rig.until(lambda: images(rig)["running"]["checked"], "the image is checked again")
    rig.machine.raw(int(images(rig)["running"]["image"], 16) + offset, 1)[0] ^= 1
    rig.client.call("restart", vnode=1)
    rig.wait(1, incarnation=3)
    first = word(rig).way
    assert first is (abi.Way.WARM if offset == 0x3000 else abi.Way.COLD)
    rig.until(lambda: not images(rig), "the damaged image is given up")


def test_a_refusal_names_the_task_and_the_vnode_goes_on(warm_rig):
    rig = warm_rig("")
    vnode = rig.machine.vnodes[1]
    with pytest.raises(WatchdogError, match="vnode-ready"):
        rig.client.call("freeze", vnode=1)
    vnode.declare_ready()
    rig.client.call("inject", vnode=1, kind="stuck")
    with pytest.raises(WatchdogError, match=r'"one" goes on: task "vnode_inject/0" \(pid 99\)'):
        rig.client.call("freeze", vnode=1)
    assert rig.wait(1)["incarnation"] == 1
    assert not rig.incidents()


def test_a_freeze_on_demand_goes_on_as_the_same_incarnation(warm_rig):
    rig = warm_rig("")
    rig.machine.vnodes[1].declare_ready()
    reply = rig.client.call("freeze", vnode=1)
    assert [one["role"] for one in reply["images"]] == ["running"]
    assert rig.wait(1)["incarnation"] == 1
    rig.client.call("restart", vnode=1, strategy="warm")
    rig.wait(1, incarnation=2)
    assert word(rig).way is abi.Way.WARM


def test_a_strategy_that_cannot_be_had_is_refused(warm_rig):
    rig = warm_rig("")
    for strategy in ("warm", "standby"):
        with pytest.raises(WatchdogError, match="freeze"):
            rig.client.call("restart", vnode=1, strategy=strategy)
    with pytest.raises(WatchdogError, match="known: cold, warm, standby"):
        rig.client.call("restart", vnode=1, strategy="tepid")


def test_a_restart_by_an_operator_can_take_the_standby_and_can_be_cold(standby):
    standby.client.call("restart", vnode=1)
    standby.wait(1, incarnation=3)
    assert word(standby).way is abi.Way.STANDBY
    standby.until(lambda: "standby" in images(standby), "the region that was left stands by")
    standby.client.call("restart", vnode=1, strategy="cold")
    standby.wait(1, incarnation=4)
    assert word(standby).way is abi.Way.COLD


def test_a_stop_gives_all_memory_back(standby):
    def free():
        return standby.machine.info().range

    standby.client.call("stop", vnode=1)
    standby.wait(1, "stopped")
    standby.until(lambda: not images(standby), "no image is left")
    standby.until(lambda: not (word(standby).image_tsc or word(standby).standby_tsc), "none told")
    standby.client.call("start", vnode=1)
    ready(standby, 3)
    ready(standby, 4)
    standby.until(lambda: set(images(standby)) == {"running", "standby"}, "two images again")


def test_the_plan_says_what_the_standby_will_do(standby):
    steps = standby.client.call("restart", vnode=1, dry_run=True)["steps"]
    assert [step["step"] for step in steps] == [
        "fenced",
        "captured",
        "restored",
        "started",
        "running",
    ]
    assert images(standby)["standby"]["region"] in steps[2]["does"]


def test_a_daemon_that_was_killed_finds_the_images_and_the_standby_again(standby):
    before = images(standby)
    standby.kill()
    standby.start()
    standby.until(lambda: set(images(standby)) == {"running", "standby"}, "both found")
    after = images(standby)
    for role in before:
        assert after[role]["image"] == before[role]["image"]
        assert after[role]["region"] == before[role]["region"]
    incident = crash(standby)
    assert (incident.restart, word(standby).way) == ("standby", abi.Way.STANDBY)
    standby.until(lambda: "standby" in images(standby), "the failed region stands by")
    assert standby.machine.starts == [1, 1]  # no boot since


def test_a_daemon_killed_at_once_after_a_crash_still_resumes_or_boots(standby):
    for turn in range(4):
        last = word(standby).incarnation
        standby.machine.vnodes[1].crash()
        time.sleep(0.02 * turn)
        standby.kill()
        standby.start()
        standby.until(lambda last=last: word(standby).incarnation > last, "a successor")
        standby.wait(1, incarnation=last + 1)
    found = images(standby).values()
    assert len({one["image"] for one in found}) == len(found)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda raw: raw.__setitem__(9, raw[9] ^ 1), "damaged"),
        (lambda raw: raw.__setitem__(slice(0, 8), bytes(8)), "there is no image"),
        (lambda raw: raw.__setitem__(0x3000, raw[0x3000] ^ 1), "pages at"),
    ],
    ids=["header", "gone", "page"],
)
def test_a_new_daemon_drops_a_damaged_image_and_says_why(warm_rig, logged, spoil, why):
    rig = warm_rig(WARM)
    ready(rig, 1)
    frozen(rig)
    place = int(images(rig)["running"]["image"], 16)
    rig.kill()
    spoil(rig.machine.raw(place, 0x4000))
    rig.start()
    rig.until(lambda: not images(rig), "the image is dropped")
    crash(rig)
    assert word(rig).way is abi.Way.COLD
    rig.until(lambda: why in logged(), "the reason")


def test_a_new_daemon_does_not_use_the_image_of_another_kernel(warm_rig):
    rig = warm_rig(WARM)
    ready(rig, 1)
    frozen(rig)
    rig.kill()
    text = rig.config.read_text()
    rig.config.write_text(text.replace("inject = true", 'inject = true\ncmdline = "another"'))
    rig.start()
    assert not images(rig)
    crash(rig)
    assert word(rig).way is abi.Way.COLD


def test_a_journal_that_cannot_be_read_is_none(warm_rig):
    rig = warm_rig(WARM)
    ready(rig, 1)
    frozen(rig)
    rig.kill()
    (rig.config.parent / "run" / "images.json").write_text('[{"vnode": 1')
    rig.start()
    assert not images(rig)
    assert rig.wait(1)["incarnation"] == 1

# SPDX-License-Identifier: GPL-2.0-or-later
"""Slots in the daemon: staged, tried, blessed, fallen back to, refused by digest, kept."""

from __future__ import annotations

import hashlib
import json

import pytest

from kexec_restart import fast_boot
from kexec_restart.slots import Health
from tests.adeos import test_vmlinux
from watchdog import staging
from watchdog.client import CommandError
from watchdog.composer import Composer
from watchdog.shelf import Shelf

LOOP = "tries = 2\nbackoff_s = 1\nattempts = 2\nhealthy_s = 3600"


def slots(rig, vnode: int = 1) -> dict:
    reply = rig.client.call("slots", vnode=vnode)
    return reply | {one["slot"]: one for one in reply["slots"]}


@pytest.fixture
def lone(make_rig, rig_tools):
    """One vnode, running, its image called good; a new one lies beside it."""
    rig = make_rig(rig_tools.vnode_text(1, "one", [1], LOOP)).start()
    rig.wait(1)
    rig.client.call("bless", vnode=1)
    new = rig.config.parent / "vmlinuz-new"
    new.write_bytes(rig_tools.tiny_bzimage() + bytes(512))
    rig.new = new
    return rig


def crash(rig, incarnation: int) -> None:
    rig.wait(1, "running", incarnation=incarnation)
    rig.machine.vnodes[1].crash()


def test_a_new_image_that_crashes_gives_way_to_the_good_one(lone):
    reply = lone.client.call("stage", vnode=1, kernel=str(lone.new))
    assert reply["slot"] == reply["next"] == "b" and reply["running"] == "a"
    lone.client.call("restart", vnode=1)
    crash(lone, 2)
    crash(lone, 3)
    lone.wait(1, "running", incarnation=4)
    found = slots(lone)
    assert (found["running"], found["next"]) == ("a", "a")
    assert (found["a"]["health"], found["b"]["health"]) == ("good", "bad")
    assert found["b"]["why"] == "failed at each try"


def test_slots_outlive_the_daemon_and_files_that_were_replaced(lone, rig_tools):
    lone.client.call("stage", vnode=1, kernel=str(lone.new))
    lone.client.call("restart", vnode=1)
    lone.wait(1, "running", incarnation=2)
    before = slots(lone)
    assert before["b"]["tries"] == 1, "taken at the start"
    lone.kill()
    lone.new.unlink()
    lone.start()
    assert slots(lone) == before
    crash(lone, 2)
    lone.wait(1, "running", incarnation=3)
    assert slots(lone)["b"]["tries"] == 0 and slots(lone)["running"] == "b"
    assert Shelf(lone.state / "slots").load(1).b.health is Health.INDETERMINATE


def test_a_staged_command_line_keeps_the_words_of_fast_boot(make_rig, rig_tools, monkeypatch):
    monkeypatch.setattr("watchdog.daemon.unpack", lambda kernel, name: test_vmlinux.WHOLE)
    text = rig_tools.vnode_text(1, "one", [1]).replace("cpus = ", "fast_boot = true\ncpus = ")
    rig = make_rig(text).start()
    rig.client.call("stage", vnode=1, cmdline="quiet")
    assert slots(rig)["a"]["cmdline"] == fast_boot.CMDLINE
    assert slots(rig)["b"]["cmdline"] == f"{fast_boot.CMDLINE} quiet"


def test_healthy_running_makes_an_image_good(make_rig, rig_tools):
    rig = make_rig(rig_tools.vnode_text(1, "one", [1], "healthy_s = 1")).start()
    rig.wait(1)
    assert slots(rig)["a"]["health"] == "indeterminate"
    rig.until(lambda: slots(rig)["a"]["health"] == "good", "a good slot", limit=5)
    saved = json.loads((rig.state / "slots" / "1.json").read_text())
    assert saved["running"] == "a"


def scribble(rig, slot: str):
    """Alter the staged kernel in the daemon's memory, as a wild write would; its digest is due."""
    stage = rig.staging().stage
    spec = rig.staging().service.units[1].vnode.slots.get(slot).spec
    image = stage._images[spec]
    data = bytearray(image.kernel)
    data[0x300] ^= 1
    stage._images[spec] = image._replace(kernel=bytes(data))
    stage._fresh.discard(spec)
    return spec


@pytest.fixture
def open_staging(monkeypatch):
    """Hands out the daemon's own Staging."""
    made = []
    original = staging.Staging.__init__

    def watched(self, *args):
        made.append(self)
        original(self, *args)

    monkeypatch.setattr(staging.Staging, "__init__", watched)
    return lambda: made[-1]


def test_a_scribbled_image_is_refused_by_its_digest_and_the_other_slot_used(
    open_staging, lone, monkeypatch
):
    monkeypatch.setattr(Composer, "prepare", lambda *_: None)  # the root has no idle time
    lone.staging = open_staging
    lone.client.call("stage", vnode=1, kernel=str(lone.new))
    lone.client.call("restart", vnode=1)
    lone.wait(1, "running", incarnation=2)
    scribble(lone, "b")
    crash(lone, 2)
    reply = lone.wait(1, "running", incarnation=3)
    found = slots(lone)
    assert found["running"] == "a" and found["b"]["health"] == "bad"
    assert "was altered" in found["b"]["why"]
    (incident,) = lone.finished(1)
    assert (incident.outcome, incident.successor) == ("restarted", reply["incarnation"])


def test_an_alteration_found_in_time_is_mended_from_the_disk(open_staging, lone, monkeypatch):
    lone.staging = open_staging
    lone.stop()
    monkeypatch.setattr(staging, "CHECK_EVERY_S", 0.05)
    lone.start()
    spec = scribble(lone, "a")
    good = hashlib.sha256((lone.config.parent / "vmlinuz").read_bytes()).hexdigest()

    def mended() -> bool:
        image = lone.staging().stage._images.get(spec)
        return image is not None and hashlib.sha256(image.kernel).hexdigest() == good

    lone.until(mended, "the image as it was")
    assert slots(lone)["a"]["health"] == "good"


def test_a_config_that_names_another_kernel_is_a_new_image(lone):
    lone.stop()
    lone.config.write_text(lone.config.read_text().replace('"vmlinuz"', '"vmlinuz-new"'))
    lone.start()
    found = slots(lone)
    assert (found["running"], found["next"]) == ("a", "b")
    assert found["b"]["kernel"] == str(lone.new) and found["b"]["tries"] == 2


@pytest.mark.parametrize("damage", ['{"a": 5', '{"first": "z"}', '{"running": 1}', "\x00", ""])
def test_a_damaged_slots_file_is_told_and_begun_anew(lone, logged, damage):
    lone.stop()
    (lone.state / "slots" / "1.json").write_text(damage)
    lone.start()
    assert slots(lone)["a"]["health"] == "indeterminate"
    lone.until(lambda: "its slots begin anew" in logged(), "a word about it")


def test_quarantine_and_clear(make_rig, rig_tools):
    text = rig_tools.vnode_text(1, "one", [1], "attempts = 0")
    rig = make_rig(text.replace("intensity = 1000", "intensity = 1")).start()
    crash(rig, 1)
    crash(rig, 2)
    rig.wait(1, "quarantined")
    with pytest.raises(CommandError, match="clear it or use --force"):
        rig.client.call("start", vnode=1)
    assert rig.client.call("clear", vnode=1)["state"] == "stopped"
    assert rig.machine.query(1) is None
    with pytest.raises(CommandError, match="only a quarantined vnode"):
        rig.client.call("clear", vnode=1)
    rig.client.call("start", vnode=1)
    crash(rig, 3)
    rig.wait(1, "running", incarnation=4)


@pytest.mark.parametrize(
    ("verb", "args", "code", "words"),
    [
        ("stage", {"slot": "c"}, 2, "a vnode has a and b"),
        ("stage", {"kernel": "vmlinuz"}, 2, "no absolute path"),
        ("stage", {"kernel": "/nonexistent"}, 3, "/nonexistent"),
        ("stage", {"kernel": "/etc/passwd"}, 3, "/etc/passwd"),
        ("stage", {"cmdline": 7}, 2, "is a text"),
        ("bless", {"slot": "b"}, 6, "slot b is empty"),
        ("bless", {"bad": "yes"}, 2, "true or false"),
        ("slots", {"vnode": 9}, 4, "no vnode 9"),
    ],
)
def test_bad_requests(lone, verb, args, code, words):
    with pytest.raises(CommandError, match=words) as refused:
        lone.client.call(verb, **{"vnode": 1, **args})
    assert refused.value.exit_code == code


def test_a_running_slot_is_not_staged_over(lone):
    lone.client.call("stage", vnode=1, kernel=str(lone.new))
    with pytest.raises(CommandError, match="stage into b"):
        lone.client.call("stage", vnode=1, slot="a")


def test_a_crash_loop_waits_as_configured_then_the_good_slot_then_quarantine(make_rig, rig_tools):
    policy = "tries = 99\nbackoff_s = 1\nbackoff_max_s = 1\nattempts = 1\nhealthy_s = 3600"
    text = rig_tools.vnode_text(1, "one", [1], policy)
    rig = make_rig(text.replace("intensity = 1000", "intensity = 1")).start()
    rig.wait(1)
    rig.client.call("bless", vnode=1)
    new = rig.config.parent / "vmlinuz-new"
    new.write_bytes(rig_tools.tiny_bzimage() + bytes(512))
    rig.client.call("stage", vnode=1, kernel=str(new))
    rig.client.call("restart", vnode=1)
    ran = []
    for incarnation in range(2, 7):
        rig.wait(1, "running", incarnation=incarnation)
        ran.append(slots(rig)["running"])
        rig.machine.vnodes[1].crash()
    rig.wait(1, "quarantined")
    assert ran == ["b", "b", "b", "a", "a"]
    crashes = rig.finished(5)
    waits = [one.stamps.get("started", 0) - one.stamps["captured"] for one in crashes]
    assert [wait > 1_000_000_000 for wait in waits] == [False, True, False, True, False]
    assert max(waits) < 1_500_000_000
    assert crashes[-1].outcome == "quarantined" and "started" not in crashes[-1].stamps

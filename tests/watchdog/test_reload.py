# SPDX-License-Identifier: GPL-2.0-or-later
"""A changed config: what holds at once, at the next start, and not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchdog import config as configs
from watchdog.client import CommandError
from watchdog.reloading import plan

BASE = """
[watch]
period_ms = 10
[[vnode]]
id = 1
name = "one"
kernel = "k"
cpus = [1]
memory = "64M"
[[vnode]]
id = 2
name = "two"
kernel = "k"
cpus = [2]
memory = "64M"
"""


def planned(old: str, new: str, bound: set[int]):
    first, second = (configs.parse(text, Path("/c"), files=False) for text in (old, new))
    return plan(first, second, bound)


@pytest.mark.parametrize(
    ("change", "group", "words"),
    [
        (("period_ms = 10", "period_ms = 20"), "refused", "[watch] period_ms"),
        (("period_ms = 10", "hold = false"), "applied", "[watch]"),
        (("[watch]", "[dumps]\ncount = 3\n[watch]"), "applied", "[dumps]"),
        (("[watch]", "[machine]\ncpus = [1, 2]\n[watch]"), "refused", "[machine]"),
        (('name = "one"', 'name = "uno"'), "refused", "vnode 1 (one): name"),
        (('name = "two"', 'name = "dos"'), "applied", "vnode 2 (two): name"),
        (("cpus = [1]", "cpus = [3]"), "refused", "vnode 1 (one): cpus"),
        (("cpus = [2]", "cpus = [3]"), "applied", "vnode 2 (two): cpus"),
        (('kernel = "k"', 'kernel = "l"'), "later", "vnode 1 (one): kernel"),
        (("memory", "watch = { irq = { limit_ms = 77 } }\nmemory"), "later", "one): watch"),
        (("memory", "fast_boot = true\nmemory"), "later", "one): fast_boot"),
        (("memory", "restart = { intensity = 1 }\nmemory"), "applied", "one): restart"),
        (('id = 2\nname = "two"', 'id = 3\nname = "three"'), "applied", "vnode 2 (two): gone"),
        (('id = 1\nname = "one"', 'id = 3\nname = "three"'), "refused", "vnode 1 (one): is not in"),
    ],
)
def test_what_a_change_does_while_vnode_1_runs(change, group, words):
    found = planned(BASE, BASE.replace(*change, 1), {1})
    assert any(words in line for line in getattr(found, group)), found
    others = {"applied", "later", "refused"} - {group}
    told = [line for name in others for line in getattr(found, name) if "new" not in line]
    assert told == [], "said once, in its group"


def test_what_is_refused_stays_as_it_was():
    new = BASE.replace("cpus = [1]", "cpus = [3]").replace("period_ms = 10", "period_ms = 20")
    found = planned(BASE, new.replace("64M", "128M"), {1})
    assert found.config.watch.period_ms == 10
    assert (found.config.find(1).cpus, found.config.find(1).memory) == ((1,), "64M")
    assert found.config.find(2).memory == "128M"
    assert planned(BASE, BASE, {1, 2})[1:] == ((), (), ())


def edit(rig, *changes: tuple[str, str]) -> None:
    text = rig.config.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    rig.config.write_text(text)


def test_running_vnodes_are_not_touched(rig, rig_tools):
    before = dict(rig.machine.vnodes)
    edit(rig, ("limit_ms = 500", "limit_ms = 555"), ("intensity = 1000", "intensity = 7"))
    third = rig_tools.vnode_text(3, "three", [1], autostart=False)
    rig.config.write_text(rig.config.read_text() + third)
    reply = rig.client.call("reload")
    assert sorted(reply["applied"]) == ["vnode 1 (one): restart", "vnode 3 (three): new"]
    assert reply["later"] == ["vnode 1 (one): watch, at its next start"]
    assert reply["refused"] == []
    assert rig.machine.vnodes == before and len(rig.machine.starts) == 2
    assert rig.client.call("status")["vnodes"][2]["state"] == "offline"
    rig.machine.vnodes[1].crash()
    rig.wait(1, "running", incarnation=2)


def test_a_new_vnode_starts_and_one_that_is_gone_is_forgotten(make_rig, rig_tools):
    rig = make_rig(rig_tools.vnode_text(1, "one", [1])).start()
    rig.wait(1)
    text = rig.config.read_text()
    rig.config.write_text(text + rig_tools.vnode_text(2, "two", [2, 3]))
    rig.client.call("reload")
    rig.wait("two", "running")
    rig.config.write_text(text)
    assert rig.client.call("reload")["refused"] == [
        "vnode 2 (two): is not in the file, but runs; stop it, reload"
    ]
    rig.client.call("stop", vnode=2)
    rig.until(lambda: rig.machine.query(2) is None, "unbound")
    assert rig.client.call("reload")["applied"] == ["vnode 2 (two): gone"]
    with pytest.raises(CommandError, match="no vnode 2"):
        rig.client.call("start", vnode=2)
    rig.config.write_text(text + rig_tools.vnode_text(2, "two", [2, 3]))
    rig.client.call("reload")
    rig.wait(2, "running")


def test_a_new_kernel_is_staged_and_falls_back(make_rig, rig_tools):
    rig = make_rig(rig_tools.vnode_text(1, "one", [1])).start()
    rig.wait(1)
    (rig.config.parent / "new").write_bytes(rig_tools.tiny_bzimage() + bytes(512))
    edit(rig, ('kernel = "vmlinuz"', 'kernel = "new"'))
    assert rig.client.call("reload")["later"] == ["vnode 1 (one): kernel, at its next start"]
    found = rig.client.call("slots", vnode=1)
    assert (found["running"], found["next"]) == ("a", "b")
    rig.client.call("restart", vnode=1)
    rig.wait(1, "running", incarnation=2)
    assert rig.client.call("slots", vnode=1)["running"] == "b"
    assert rig.client.call("reload")["later"] == []


def test_files_of_other_content_are_staged(rig, rig_tools):
    kernel = rig.config.parent / "vmlinuz"
    kernel.touch()
    assert rig.client.call("reload")["later"] == []
    assert rig.client.call("slots", vnode=1)["next"] == "a"
    kernel.write_bytes(rig_tools.tiny_bzimage() + bytes(512))
    assert rig.client.call("reload")["later"] == [
        "vnode 1 (one): files of other content, at its next start",
        "vnode 2 (two): files of other content, at its next start",
    ]
    assert [rig.client.call("slots", vnode=vnode)["next"] for vnode in (1, 2)] == ["b", "b"]
    assert rig.client.call("reload")["later"] == []
    rig.client.call("restart", vnode=1)
    rig.wait(1, "running", incarnation=2)
    assert rig.client.call("slots", vnode=1)["running"] == "b"


def test_a_wrong_config_changes_nothing(rig):
    edit(rig, ("cpus = [1]", "cpus = [0]"), ("period_ms = 5", "perod_ms = 5"))
    with pytest.raises(CommandError) as refused:
        rig.client.call("reload")
    assert refused.value.exit_code == 3
    assert len(str(refused.value).splitlines()) == 2
    assert rig.client.call("ping")["ok"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The config: what is right is read, every mistake is found and located."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog import config, toml_lines
from watchdog.errors import ConfigError
from watchdog.spans import Span

GOOD = """\
[machine]
memory = ["0x38000000+0x40200000", "0x140000000+0x40000000"]
low = "0x10000+0x50000"
cpus = [1, 2, 3]

[watch]
period_ms = 5

[[vnode]]
id = 1
name = "web"
kernel = "kernel"
initrd = "initrd"
cmdline = "quiet"
cpus = [1]
memory = "256M"
inject = true
[vnode.watch]
irq = { limit_ms = 80 }
boot_timeout_ms = 5000
[vnode.restart]
on_crash = "preserve"
intensity = 3

[[vnode]]
id = 2
name = "db"
kernel = "kernel"
cpus = [2, 3]
memory = "512M@0x140000000"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("kernel", "initrd"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "vnodes.toml"


def mistakes(text: str, place: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, place)
    assert caught.value.exit_code == 3
    return [m.render(Path("f")) for m in caught.value.mistakes]


def test_a_good_config(place: Path) -> None:
    place.write_text(GOOD)
    found = config.load(place)
    web, db = found.vnode
    assert found.watch.period_ms == 5 and found.watch.realtime
    assert web.kernel == str(place.parent / "kernel")  # relative to the config
    assert (web.watch.irq.limit_ms, web.watch.irq.period_ms) == (80, 10)  # its own default kept
    assert web.watch.sched == config.VnodeWatch().sched
    assert web.restart.on_crash == "preserve" and web.restart.on_halt == "destroy"
    assert db.span == Span(512 << 20, 0x140000000) and db.initrd == ""
    assert found.find("db") is db and found.find(2) is db and found.find("2") is db
    assert found.find("x") is None


def test_the_module_is_relative_to_the_config(place: Path) -> None:
    text = GOOD.replace("cpus = [1, 2, 3]", 'cpus = [1, 2, 3]\nmodule = "kmb.ko"', 1)
    (missing,) = mistakes(text, place)
    assert "machine.module" in missing and missing.endswith("build it: script/modules")
    (place.parent / "kmb.ko").write_bytes(b"x")
    assert config.parse(text, place).machine.module == str(place.parent / "kmb.ko")


# What is replaced in GOOD, by what, and the line and words that must come of it.
MISTAKES = [
    ("period_ms = 5", "perod_ms = 5", "f:7: watch.perod_ms: unknown key; did you mean", None),
    ("period_ms = 5", "period_ms = 0", "f:7: watch.period_ms: 0 is out of range", None),
    ("period_ms = 5", 'period_ms = "5"', "f:7: watch.period_ms: Expected int, got str", None),
    ("[watch]", "[wach]", "f:6: wach: unknown key", None),
    ("id = 1", "id = 32", "f:10: vnode[0].id: 32 is out of range; give 1..31", None),
    ("id = 2\n", "id = 1\n", 'f:26: vnode[1].id: 1 is taken by "web"', None),
    ('name = "web"', 'name = "7"', 'f:11: vnode[0].name: "7" is no vnode name', None),
    ('name = "web"', 'name = "root"', 'f:11: vnode[0].name: "root" is the root vnode', None),
    ('name = "db"', 'name = "web"', 'f:27: vnode[1].name: "web" is taken', None),
    ('name = "web"\n', "", "f:9: vnode[0].name: missing", None),
    ('"kernel"\ninitrd', '"gone"\ninitrd', "f:12: vnode[0].kernel: ", "No such file"),
    ('"initrd"', '"gone"', "f:13: vnode[0].initrd: ", "No such file"),
    ("cpus = [1]", "cpus = []", "f:15: vnode[0].cpus: no CPU", None),
    ("cpus = [1]", "cpus = [1, 1]", "f:15: vnode[0].cpus: CPU 1 is named twice", None),
    ("cpus = [1]", "cpus = [0]", "f:15: vnode[0].cpus: CPU 0 belongs to the root", None),
    ("cpus = [1]", "cpus = [4]", "f:15: vnode[0].cpus: CPU 4 is not in machine.cpus", None),
    ("cpus = [1]", "cpus = [2]", 'f:29: vnode[1].cpus: CPU 2 is also "web"\'s', "autostart"),
    ('"256M"', '"256"', 'f:16: vnode[0].memory: "256" does not fit', None),
    ('"256M"', '"lots"', 'f:16: vnode[0].memory: "lots" is no size', "256M@"),
    ('"256M"', '"256M@0x10000000"', "f:16: vnode[0].memory: ", "is not in machine.memory"),
    ('"256M"', '"256M@0x150000000"', 'f:30: vnode[1].memory: overlaps "web"\'s memory', None),
    ('"512M@', '"2G@', "f:30: vnode[1].memory: ", "is not in machine.memory"),
    ("inject = true", "inject = 1", "f:17: vnode[0].inject: Expected bool", None),
    ("limit_ms = 80", "limit_ms = 8", "f:19: vnode[0].watch.irq.limit_ms: 8 is out", None),
    ("limit_ms = 80", "limt_ms = 8", "f:19: vnode[0].watch.irq.limt_ms: unknown key", None),
    ('"preserve"', '"keep"', 'f:22: vnode[0].restart.on_crash: "keep" is not', "preserve"),
    ("intensity = 3", "intensity = -1", "f:23: vnode[0].restart.intensity: -1 is out", None),
    ('"quiet"', '"' + "x" * 2048 + '"', "f:14: vnode[0].cmdline: too long", None),
    ('"0x10000+0x50000"', '"0x1000+0x5000"', "f:3: machine.low: ", "0x10000..0xa0000"),
    ('"0x10000+0x50000"', '"0x90000+0x20000"', "f:3: machine.low: ", "0x10000..0xa0000"),
    ('"0x10000+0x50000"', '"65536"', 'f:3: machine.low: "65536" is no BASE+SIZE', None),
    ('"0x140000000+0x40', '"0x40000000+0x40', "f:2: machine.memory: ", "overlaps"),
]


@pytest.mark.parametrize(("old", "new", "starts", "has"), MISTAKES)
def test_each_mistake_is_located(place, old, new, starts, has) -> None:
    assert GOOD.count(old) >= 1
    found = mistakes(GOOD.replace(old, new, 1), place)
    assert any(line.startswith(starts) and (has or "") in line for line in found), found


def test_all_mistakes_are_listed_in_order_once(place: Path) -> None:
    text = GOOD.replace("period_ms = 5", "x = 1").replace("cpus = [1]", "cpus = [0, 0]")
    text = text.replace('"preserve"', '"keep"').replace('kernel = "kernel"\ncpus', "cpus")
    found = mistakes(text, place)
    assert [line.split(":")[1] for line in found] == sorted(
        (line.split(":")[1] for line in found), key=int
    )
    assert len(found) == 4, found


def test_overlaps_are_fine_when_not_both_start_by_themselves(place: Path) -> None:
    text = GOOD.replace("cpus = [1]", "cpus = [2]\nautostart = false")
    assert config.parse(text, place).vnode[0].cpus == (2,)


@pytest.mark.parametrize(
    "text",
    ["[[vnode]", 'x = "', "vnode = 3", "[[vnode]]\nwatch = 4", "machine = []", "vnode = [1]"],
)
def test_broken_toml_and_wrong_shapes(place: Path, text: str) -> None:
    assert all(line.startswith("f:") for line in mistakes(text, place))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        config.load(tmp_path / "none.toml")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        config.parse(text, Path("/nonexistent/f"), files=False)
    except ConfigError as error:
        assert error.mistakes


KEYS = st.sampled_from(["id", "name", "cpus", "memory", "kernel", "watch", "restart", "x"])
VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text(max_size=8), st.floats(allow_nan=False)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_any_vnode_table_is_read_or_refused(table: dict[str, object]) -> None:
    import json

    body = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    try:
        config.parse(f"[[vnode]]\n{body}\n", Path("/nonexistent/f"), files=False)
    except ConfigError as error:
        assert all(mistake.what for mistake in error.mistakes)


def test_lines_of_keys_survive_multi_line_strings() -> None:
    text = '[a]\nb = """\nc = 1\n[d]\n"""\ne = 2\n[[v]]\n[[v]]\n[v.w]\nf.g = 1\n'
    lines = toml_lines.key_lines(text)
    assert lines[("a", "e")] == 6 and ("a", "c") not in lines and ("d",) not in lines
    assert lines[("v", 1, "w", "f", "g")] == 10
    assert toml_lines.find_line(lines, ("v", 1, "w", "zz", "y")) == 9
    assert toml_lines.show(("v", 1, "w")) == "v[1].w"

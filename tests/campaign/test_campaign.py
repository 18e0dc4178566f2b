# SPDX-License-Identifier: GPL-2.0-or-later
"""The campaign's pure parts: catalogue, plan, verdicts, bound, page."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.catalogue import BY_NAME, CATALOGUE, SHORT, UNCONTAINED, End, How
from tests.campaign.judge import bound, judge
from tests.campaign.plan import shot
from tests.campaign.table import page, with_again

SOURCES = Path(__file__).resolve().parents[2] / "adeos" / "faults"
VNODES = (1, 2, 3)


def module_names() -> set[str]:
    texts = [path.read_text() for path in SOURCES.glob("*.c") if path.name != "outside.c"]
    return {name for text in texts for name in re.findall(r"\bENTRY\((\w+)\)", text)}


def test_at_least_forty_different_faults() -> None:
    assert len(CATALOGUE) >= 40
    assert len(BY_NAME) == len(CATALOGUE)


def test_module_and_catalogue_know_the_same_faults() -> None:
    keys = [fault.keys for fault in CATALOGUE if fault.how is not How.SCRIBBLE]
    typed = {name for line in keys for name in re.findall(r"echo (\w+) >/dev/vnode_faults", line)}
    by_root = {f.name for f in CATALOGUE if f.how in (How.BOOT, How.NO_INIT)}
    assert typed - by_root == module_names()


def test_module_and_catalogue_know_the_same_that_is_beyond_containment() -> None:
    text = (SOURCES / "outside.c").read_text()
    assert set(re.findall(r"\bENTRY\((\w+)\)", text)) == set(UNCONTAINED)


def test_the_same_seed_gives_the_same_shots() -> None:
    first = [shot(7, index, VNODES) for index in range(50)]
    assert first == [shot(7, index, VNODES) for index in range(50)]
    assert first != [shot(8, index, VNODES) for index in range(50)]


def test_each_fault_comes_before_any_comes_again() -> None:
    names = [shot(3, index, VNODES).fault for index in range(2 * len(CATALOGUE))]
    assert set(names[: len(CATALOGUE)]) == set(names[len(CATALOGUE) :]) == set(BY_NAME)


def test_no_vnode_fails_twice_in_a_row() -> None:
    victims = [shot(1, index, VNODES).vnodes[0] for index in range(30)]
    assert all(one != two for one, two in itertools.pairwise(victims))
    assert sorted(shot(1, 0, VNODES).vnodes) == [1, 2, 3]


@pytest.mark.parametrize(("n", "escapes", "share"), [(69, 0, 0.9575), (300, 0, 0.9901)])
def test_bound_without_escapes(n: int, escapes: int, share: float) -> None:
    assert bound(n, escapes) == pytest.approx(share, abs=1e-4)


def test_bound_with_escapes() -> None:
    # the p of p^300 + 300 p^299 (1 - p) = 0.05
    assert bound(300, 1) == pytest.approx(0.98428, abs=1e-4)
    assert bound(300, 1) < bound(300)
    assert bound(0) == bound(5, 5) == 0
    with pytest.raises(ValueError, match="3 escapes of 2"):
        bound(2, 3)


def incident(**fields: Any) -> dict[str, Any]:
    return {
        "id": 1, "reason": "panic", "crash": True, "outcome": "restarted", "dump": "done",
        "why": "", "title": "kernel panic: dumptest", "culprit": "fault_PANIC",
        "ms": {"fault": 0.0, "seen": 1.5, "running": 2000.0},
    } | fields  # fmt: skip


def record(fault: str, *incidents: dict[str, Any], **fields: Any) -> dict[str, Any]:
    victim = {"state": "running", "alive": True, "incidents": list(incidents)}
    return {
        "shot": 0, "fault": fault, "group": BY_NAME[fault].group, "victims": {"1": victim},
        "others": {"2": {"gap_ms": [10.0, 20.0, 100.0], "work": 3, "harm": []}}, "root": [],
        "trouble": [], "at": 1000.0,
    } | fields  # fmt: skip


def verdict(one: dict[str, Any]) -> tuple[list[str], list[str]]:
    return tuple(judge(BY_NAME[one["fault"]], one))  # type: ignore[return-value]


def test_what_is_foreseen_is_no_miss() -> None:
    assert verdict(record("PANIC", incident())) == ([], [])


@pytest.mark.parametrize(
    ("change", "miss"),
    [
        ({"reason": "hang"}, "reason hang, not panic"),
        ({"dump": "failed", "why": "disk full"}, "dump is failed: disk full"),
        ({"title": ""}, "not analysed"),
        ({"title": "kernel panic: other"}, "title 'kernel panic: other'"),
        ({"culprit": "x"}, "culprit 'x', not 'fault_PANIC'"),
    ],
)
def test_misses_of_an_incident(change: dict[str, Any], miss: str) -> None:
    assert verdict(record("PANIC", incident(**change))) == ([], [f"vnode 1: {miss}"])


def test_a_fault_that_nobody_saw_is_a_miss() -> None:
    assert verdict(record("PANIC"))[1] == ["vnode 1: not detected"]


def test_one_fault_with_two_incidents_is_a_miss() -> None:
    assert verdict(record("PANIC", incident(), incident()))[1] == [
        "vnode 1: 2 incidents, not 1: panic, panic"
    ]


def test_a_vnode_that_is_to_stay_and_was_taken_for_dead() -> None:
    assert BY_NAME["CONSOLE_FLOOD"].end is End.STAYS
    assert verdict(record("CONSOLE_FLOOD")) == ([], [])
    assert "taken for dead" in verdict(record("CONSOLE_FLOOD", incident(reason="hang")))[1][0]


def test_harm_elsewhere_is_an_escape() -> None:
    others = {"2": {"harm": ["is restarting: hang"]}, "3": {"harm": []}}
    one = record("PANIC", incident(), others=others, root=["a canary changed"])
    assert verdict(one)[0] == ["vnode 2: is restarting: hang", "root: a canary changed"]


def test_titles_are_regular_expressions() -> None:
    for fault in CATALOGUE:
        re.compile(fault.title)


def test_short_is_part_of_the_catalogue() -> None:
    assert set(SHORT) <= set(BY_NAME)


def test_page_reports_an_escape_and_the_bound() -> None:
    good = record("PANIC", incident()) | {"escapes": [], "misses": []}
    bad = record("HALT") | {"shot": 1, "escapes": ["root: a | b"], "misses": ["vnode 1: late"]}
    text = page([good, bad], seed=4, wanted=3)
    assert (
        "**1 of 2 faults contained, 1 escaped: with 95 % confidence at least 2.53% are.**" in text
    )
    assert "3 were planned; the run was ended after 2." in text
    assert "- 1 HALT: root: a / b" in text
    assert "| panic | 1 | 1 | 0 | 5.0% | 0 | 1.5 (2) | 2.0 |" in text
    assert "--seed 4 --only K" in text


def test_page_without_an_escape() -> None:
    good = record("PANIC", incident()) | {"escapes": [], "misses": []}
    text = page([good | {"shot": k} for k in range(300)], seed=4, wanted=300)
    assert "**300 of 300 faults contained: with 95 % confidence at least 99.01% are.**" in text
    assert "## Escapes\nNone." in text


def test_page_tells_what_became_of_what_cannot_be_contained() -> None:
    good = record("PANIC", incident()) | {"escapes": [], "misses": []}
    gone = {"outside": "TRIPLE_FAULT", "machine": "is gone"}
    seen = {"outside": "STRAY_INIT", "states": {"1": "running", "2": "booting"}, "root": ["a | b"],
            "incidents": [[2, "irqhang"]]}  # fmt: skip
    text = page([good, gone, seen], seed=4, wanted=1)
    assert "Tried: the whole machine is gone." in text
    noticed = "Tried: noticed irqhang of vnode 2; afterwards vnode 1 running, vnode 2 booting"
    assert f"{noticed}; the root: a / b." in text
    assert "Not tried." in text


def test_what_was_run_again_is_told_apart_on_the_page() -> None:
    good = record("EXEC_NULL", incident()) | {"escapes": [], "misses": []}
    bad = record("EXEC_STACK", incident()) | {"shot": 1, "escapes": [], "misses": ["no | title"]}
    first = page([good, bad], seed=4, wanted=2)
    text = with_again(with_again(first, [good], seed=5), [good | {"shot": 0}, bad], seed=6)
    assert text.startswith(first)
    assert text.count("## Run again") == 1
    assert "--n 2 --seed 6 --again --fault EXEC_NULL --fault EXEC_STACK" in text
    assert "| EXEC_STACK | 1 | panic 1 | 0 | 1 |" in text
    assert "- 1 EXEC_STACK: no / title" in text

# SPDX-License-Identifier: GPL-2.0-or-later
"""A few different faults in real vnodes: contained, and each as the catalogue says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from box import machine
from tests.campaign import host, vnodes
from tests.campaign.catalogue import SHORT

pytestmark = [pytest.mark.box, pytest.mark.timeout(900)]
SEED = 1


def test_different_faults_are_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a box of its own, beside the shared one."""
    monkeypatch.setenv("VNODE_DEBUG_BOX", str(tmp_path / "box"))
    lines = host.Lines(tmp_path / "lines.jsonl")
    machine.up(replace(host.BOX, die_with_parent=True), print)
    try:
        host.prepare(vnodes.PATIENT)
        assert host.run_once(lines, SEED, range(len(SHORT)), SHORT, patience=4)
    finally:
        machine.down(print)
    shots = [line for line in lines.known if "shot" in line]
    assert {line["fault"] for line in shots} == set(SHORT)
    assert [line for line in shots if line["escapes"] or line["misses"]] == []
    points = [line for line in lines.known if "checkpoint" in line]
    assert [line for line in points if line["left"] or line["root"]] == []

# SPDX-License-Identifier: GPL-2.0-or-later
"""A few different faults in real vnodes: contained, and each as the catalogue says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.campaign import host, vnodes
from tests.campaign.catalogue import SHORT

if TYPE_CHECKING:
    RunningBox = Any

pytestmark = [pytest.mark.box, pytest.mark.timeout(600)]
SEED = 1


def test_different_faults_are_contained(box: RunningBox, tmp_path: Path) -> None:
    lines = host.Lines(tmp_path / "lines.jsonl")
    host.prepare(vnodes.PATIENT)
    try:
        assert host.run_once(lines, SEED, range(len(SHORT)), SHORT, patience=4)
    finally:
        # with all of its memory again
        box.run(f"vnode-debug down; {host.FORGET}; load-kmb", timeout=120)
    shots = [line for line in lines.known if "shot" in line]
    assert {line["fault"] for line in shots} == set(SHORT)
    assert [line for line in shots if line["escapes"] or line["misses"]] == []
    points = [line for line in lines.known if "checkpoint" in line]
    assert [line for line in points if line["left"] or line["root"]] == []

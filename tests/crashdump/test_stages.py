# SPDX-License-Identifier: GPL-2.0-or-later
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashdump.stages import ORDER, Stage, since_fault, table

STAMPS = st.dictionaries(st.sampled_from(list(Stage)), st.integers(0, (1 << 64) - 1))


def test_stamps_become_milliseconds() -> None:
    stamps = {Stage.RUNNING: 9_000_000, Stage.FAULT: 1_000_000, Stage.SEEN: 3_000_000}
    assert since_fault(stamps, 2_000_000) == {"fault": 0, "seen": 1_000_000, "running": 4_000_000}
    assert [tuple(row) for row in table(since_fault(stamps, 2_000_000))] == [
        (Stage.FAULT, 0.0, 0.0),
        (Stage.SEEN, 1.0, 1.0),
        (Stage.RUNNING, 4.0, 3.0),
    ]


@given(STAMPS, st.integers(1, 10_000_000))
def test_no_time_is_negative_whatever_the_vnode_wrote(stamps: dict[Stage, int], khz: int) -> None:
    rows = table(since_fault(stamps, khz))
    assert [row.stage for row in rows] == [stage for stage in ORDER if stage in stamps]
    assert all(row.step_ms >= 0 for row in rows)


def test_a_frequency_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="0 kHz"):
        since_fault({}, 0)

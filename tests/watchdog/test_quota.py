# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon keeps the dump quota: after each dump, and when it starts."""

from __future__ import annotations

import pytest

from crashdump import quota, sparse
from crashdump.incident import DumpState


def states(rig) -> list[DumpState]:
    return [one.dump.state for one in rig.incidents()]


def test_old_dumps_go_and_their_incidents_stay(make_rig, rig_tools):
    rig = make_rig("[dumps]\ncount = 2\n" + rig_tools.vnode_text(1, "one", [1])).start()
    for incarnation in range(1, 5):
        rig.wait(1, "running", incarnation=incarnation)
        rig.machine.vnodes[1].crash()
        rig.until(lambda n=incarnation: states(rig)[n - 1 : n] == [DumpState.DONE], "its dump")
    wanted = [DumpState.DONE, DumpState.REMOVED, DumpState.REMOVED, DumpState.DONE]
    rig.until(lambda: states(rig) == wanted, "two dumps left")
    assert not (rig.state / "incidents" / "0002" / "vmcore").exists()
    rig.stop()
    rig.config.write_text(rig.config.read_text().replace("count = 2", "count = 1"))
    rig.start()
    rig.until(lambda: states(rig)[0] is DumpState.REMOVED, "the first gone too")
    assert states(rig)[3] is DumpState.DONE


@pytest.mark.parametrize("hold", ["true", "false"])
def test_older_dumps_make_room_for_the_next(make_rig, rig_tools, monkeypatch, hold):
    """A disk for three dumps, not quite: the third has room, in a spare region and without one."""
    config = f"hold = {hold}\n" + rig_tools.vnode_text(1, "one", [1])
    rig = make_rig(config).start()
    capacity = 1 << 30
    beside = quota.HEADER_SPACE + (256 << 20)  # the default of `free`

    def left() -> int:
        files = [path for name in quota.FILES for path in rig.state.glob(f"incidents/*/{name}")]
        return capacity - sum(path.stat().st_blocks * 512 for path in files)

    def budget(path, reserve, need=0):
        return sparse.Budget(path, left())

    monkeypatch.setattr(quota, "disk_free", lambda store: left() + beside)
    monkeypatch.setattr(sparse, "budget", budget)
    for incarnation in range(1, 4):
        rig.wait(1, "running", incarnation=incarnation)
        rig.machine.vnodes[1].crash()
        rig.until(lambda n=incarnation: states(rig)[n - 1 : n] == [DumpState.DONE], "its dump")
        if incarnation == 1:
            capacity = (capacity - left()) * 16 // 5
    assert states(rig) == [DumpState.DONE, DumpState.REMOVED, DumpState.DONE]

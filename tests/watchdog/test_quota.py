# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon keeps the dump quota: after each dump, and when it starts."""

from __future__ import annotations

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

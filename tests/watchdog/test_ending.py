# SPDX-License-Identifier: GPL-2.0-or-later
"""Before memory goes back to the root: nothing runs in it, no dump lies in it."""

from __future__ import annotations

import sys
import time

import pytest

from adeos.errors import OwnerError
from adeos.fake import FakeMachine
from adeos.machine import Range
from crashdump import capture
from crashdump.incident import Dump, DumpMode, DumpState
from crashdump.store import IncidentStore
from watchdog import ending
from watchdog.errors import TimedOutError

REGION = Range(0x30000000, 0x8000000)
SLOT = Range(0x10000, 0x20000)
WORKER = """
import sys
from pathlib import Path
from crashdump.incident import Dump, DumpState
from crashdump.store import IncidentStore
with IncidentStore(Path(sys.argv[1])) as store:
    store.update(int(sys.argv[2]), dump=Dump(DumpState.DONE))
"""


def test_what_a_killed_daemon_left_is_parked_and_unbound() -> None:
    machine = FakeMachine()
    machine.claim()
    machine.bind(2, [2, 3], REGION, SLOT)
    assert ending.stop_orphans(machine) == [2]
    assert machine.query(2) is None
    assert ending.stop_orphans(machine) == []


def test_another_daemon_that_leads_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(ending, "CLAIM_S", 0.0)
    machine = FakeMachine()
    machine.foreign_owner = 42
    with pytest.raises(OwnerError, match="42"):
        ending.stop_orphans(machine)


@pytest.fixture
def directory(tmp_path):
    """Dumps in place, in a file, and done."""
    with IncidentStore(tmp_path) as store:
        for state, mode in (
            (DumpState.HELD, DumpMode.HOLD),
            (DumpState.COPIED, DumpMode.COPY),
            (DumpState.DONE, DumpMode.HOLD),
        ):
            one = store.create(vnode=1, name="one", incarnation=1, reason="panic", crash=True)
            store.update(one.id, dump=Dump(state, mode=mode))
    return tmp_path


def test_a_dump_that_lies_in_memory_is_written_out(directory, monkeypatch) -> None:
    def command(store: IncidentStore, number: int) -> list[str]:
        return [sys.executable, "-c", WORKER, str(store.directory), str(number)]

    monkeypatch.setattr(capture, "worker_command", command)
    assert ending.save_dumps(directory, time.monotonic() + 60) == [1]
    with IncidentStore(directory) as store:
        states = [one.dump.state for one in store.list()]
    assert states == [DumpState.DONE, DumpState.COPIED, DumpState.DONE]


def test_a_dump_that_is_not_written_in_time_keeps_the_memory(directory, monkeypatch) -> None:
    monkeypatch.setattr(capture, "worker_command", lambda store, number: ["true"])
    with pytest.raises(TimedOutError, match="dump of incident 1 is still being written"):
        ending.save_dumps(directory, time.monotonic() + 0.5)

# SPDX-License-Identifier: GPL-2.0-or-later
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashdump import incident as records
from crashdump.errors import DiskFull, NoSuchIncident, StoreError
from crashdump.incident import Dump, DumpState, Incident, IncidentState, Witness
from crashdump.store import IncidentStore

PANIC = {"vnode": 2, "name": "web", "incarnation": 7, "reason": "panic", "crash": True}


def test_an_incident_goes_its_way(incident_store: IncidentStore) -> None:
    store = incident_store
    made = store.create(**PANIC, message="Kernel panic", witnesses=(Witness(1, "db", 1, 100),))
    assert (made.id, made.state, made.dump.state) == (1, IncidentState.OPEN, DumpState.NONE)
    store.update(1, stamps={"fault": 0, "seen": 5})
    store.update(1, dump=Dump(DumpState.HELD))
    done = store.finish(1, outcome="restarted", successor=8)
    assert done == store.get(1)
    assert done.stamps == {"fault": 0, "seen": 5}
    assert done.dump.state is DumpState.HELD
    assert done.closed and done.closed >= done.opened
    assert records.decode((store.path(1) / "incident.json").read_bytes()) == done
    assert store.path(1).stat().st_mode & 0o777 == 0o700
    assert (store.path(1) / "incident.json").stat().st_mode & 0o777 == 0o600
    assert store.database.stat().st_mode & 0o777 == 0o600


def test_a_row_alone_survives_a_kill_and_reaches_the_file_later(tmp_path: Path) -> None:
    store = IncidentStore(tmp_path)
    store.create(sync=False, **PANIC)
    file = store.path(1) / "incident.json"
    before = file.read_bytes()
    store.update(1, file=False, dump=Dump(DumpState.HELD))
    assert file.read_bytes() == before
    with IncidentStore(tmp_path) as other:  # as after a kill: nothing was closed
        assert other.get(1).dump.state is DumpState.HELD
        other.sync(1)
    assert records.decode(file.read_bytes()) == store.get(1)
    assert store.get(1).dump.state is DumpState.HELD
    store.close()


def test_a_list_is_filtered(incident_store: IncidentStore) -> None:
    store = incident_store
    for number in range(6):
        reason = "panic" if number % 2 else "hang"
        fields = {**PANIC, "vnode": number // 3 + 1, "reason": reason, "opened": 100.0 + number}
        store.create(**fields)
    store.finish(1)
    store.update(2, dump=Dump(DumpState.HELD))

    def numbers(**filters: object) -> list[int]:
        return [one.id for one in store.list(**filters)]  # type: ignore[arg-type]

    assert numbers() == [1, 2, 3, 4, 5, 6]
    assert numbers(vnode=2, reverse=True) == [6, 5, 4]
    assert numbers(since=102.0, until=104.0) == [3, 4, 5]
    assert numbers(reason="panic", limit=2) == [2, 4]
    assert numbers(state=IncidentState.COMPLETE) == [1]
    assert numbers(dumps=frozenset({DumpState.HELD, DumpState.DONE})) == [2]


def test_what_never_changes_and_what_is_unknown_is_refused(incident_store: IncidentStore) -> None:
    incident_store.create(**PANIC)
    with pytest.raises(TypeError, match="opened never changes"):
        incident_store.update(1, opened=1.0)
    with pytest.raises(TypeError):
        incident_store.update(1, colour="red")
    with pytest.raises(NoSuchIncident, match="no incident 9"):
        incident_store.update(9, outcome="x")
    assert incident_store.get(1).rev == 1


@given(st.one_of(st.text(max_size=400), st.binary(max_size=400)))
def test_text_is_harmless(text: str | bytes) -> None:
    found = records.clean(text)
    assert found.isprintable() and len(found) <= 256
    assert records.clean(found) == found


def test_text_of_a_vnode_is_cleaned_on_the_way_in(incident_store: IncidentStore) -> None:
    made = incident_store.create(**PANIC, message="\x1b]0;owned\x07", comm="a\u202eb")
    assert (made.message, made.comm) == (r"\x1b]0;owned\x07", r"a\u202eb")


@pytest.mark.parametrize("shared", [True, False])
def test_two_writers_change_different_fields(incident_store: IncidentStore, shared: bool) -> None:
    incident_store.create(**PANIC)

    def change(field: str) -> None:
        store = incident_store if shared else IncidentStore(incident_store.directory)
        for number in range(40):
            store.update(1, **{field: str(number)})

    threads = [threading.Thread(target=change, args=(name,)) for name in ("policy", "outcome")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = incident_store.get(1)
    assert (found.policy, found.outcome, found.rev) == ("39", "39", 81)


def test_a_damaged_database_is_rebuilt(tmp_path: Path) -> None:
    with IncidentStore(tmp_path) as store:
        made = [store.create(**PANIC, outcome=str(n)) for n in range(5)]
    store.database.write_bytes(b"no database at all" * 1000)
    said: list[str] = []
    with IncidentStore(tmp_path, warn=said.append) as store:
        assert store.list() == made
        assert store.create(**PANIC).id == 6
    assert len(said) == 1 and "is damaged" in said[0]
    assert len(list(tmp_path.glob("incidents.db.damaged-*"))) == 1


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7])
def test_a_database_with_a_hole_is_rebuilt(tmp_path: Path, part: float) -> None:
    with IncidentStore(tmp_path) as store:
        made = [store.create(**PANIC, message="m" * 200) for _ in range(30)]
    data = bytearray(store.database.read_bytes())
    at = int(len(data) * part) // 4096 * 4096
    data[at : at + 4096] = os.urandom(4096)
    store.database.write_bytes(data)
    with IncidentStore(tmp_path, warn=lambda _: None) as store:
        assert store.list() == made


def test_a_lost_database_is_rebuilt_without_a_word(tmp_path: Path) -> None:
    with IncidentStore(tmp_path) as store:
        made = store.create(**PANIC)
    store.database.unlink()
    said: list[str] = []
    with IncidentStore(tmp_path, warn=said.append) as store:
        assert store.list() == [made]
    assert not said


@pytest.mark.parametrize("data", [b'{"id": "one\x1b"}', b'{"id": 1, "name": "\xff"}', b"\x83["])
def test_a_broken_incident_file_is_named_and_passed_over(tmp_path: Path, data: bytes) -> None:
    with IncidentStore(tmp_path) as store:
        store.create(**PANIC)
        kept = store.create(**PANIC)
    store.database.unlink()
    (store.path(1) / "incident.json").write_bytes(data)
    said: list[str] = []
    with IncidentStore(tmp_path, warn=said.append) as store:
        assert store.list() == [kept]
        assert store.create(**PANIC).id == 3
    assert len(said) == 1 and "0001/incident.json cannot be read" in said[0]


@pytest.mark.parametrize("opened", [1e300, 4e11, -1.0])
def test_a_time_that_no_calendar_shows_is_no_incident(tmp_path: Path, opened: float) -> None:
    with IncidentStore(tmp_path) as store:
        made = store.create(**PANIC)
    store.database.unlink()
    scribbled = records.encode(msgspec.structs.replace(made, opened=opened))
    (store.path(1) / "incident.json").write_bytes(scribbled)
    said: list[str] = []
    with IncidentStore(tmp_path, warn=said.append) as store:
        assert store.list() == []
    assert len(said) == 1 and "0001/incident.json cannot be read" in said[0]


def test_a_file_newer_than_its_open_row_wins(tmp_path: Path) -> None:
    with IncidentStore(tmp_path) as store:
        made = store.create(**PANIC)
    newer = records.changed(made, {"outcome": "killed before the row changed"})
    (store.path(1) / "incident.json").write_bytes(records.encode(newer))
    with IncidentStore(tmp_path) as store:
        assert store.get(1) == newer


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    with IncidentStore(tmp_path) as store:
        store.create(**PANIC)
    with sqlite3.connect(store.database) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        IncidentStore(tmp_path)


def test_an_observer_changes_nothing(tmp_path: Path) -> None:
    with IncidentStore(tmp_path / "none", read_only=True) as store:
        assert store.list() == []
    assert not list(tmp_path.iterdir())
    with IncidentStore(tmp_path) as owner, IncidentStore(tmp_path, read_only=True) as observer:
        made = owner.create(**PANIC)
        assert observer.list() == [made]
        with pytest.raises(StoreError, match="readonly"):
            observer.update(1, outcome="x")


def test_a_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="must be writable"):
        IncidentStore(tmp_path / "file" / "state")


def test_the_json_form_is_the_documented_one(incident_store: IncidentStore) -> None:
    incident_store.create(**PANIC)
    text = (incident_store.path(1) / "incident.json").read_text()
    document = Path(__file__).parents[2] / "docs/incidents.md"
    for key in (*Incident.__struct_fields__, *Dump.__struct_fields__, *Witness.__struct_fields__):
        assert f"`{key}`" in document.read_text(), key
    assert set(json.loads(text)) == set(Incident.__struct_fields__)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_keeps_what_is_there(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(tmp_path)], check=True)
    try:
        with IncidentStore(tmp_path) as store:
            made: list[Incident] = []
            with pytest.raises(DiskFull, match="no space left"):
                while len(made) < 400:
                    made.append(store.create(**PANIC, message="m" * 250))
            assert made
            assert store.list() == made
        (tmp_path / "incidents.db").unlink()
        with IncidentStore(tmp_path) as store:
            assert store.list()[: len(made)] == made
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def _work(directory: Path, out: int) -> None:
    """Creates and updates for ever, saying on `out` what is done."""
    with IncidentStore(directory) as store:
        while True:
            made = store.create(**PANIC)
            os.write(out, b"c%d\n" % made.id)
            store.update(made.id, outcome="updated")
            os.write(out, b"u%d\n" % made.id)


def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    rng = random.Random(1)
    created: set[int] = set()
    updated: set[int] = set()
    for round_number in range(400):  # a busy machine needs more rounds
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _work(tmp_path, writer)
        os.close(writer)
        time.sleep(rng.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as said:
            lines = [line for line in said if line.endswith("\n")]
        created |= {int(line[1:]) for line in lines if line[0] == "c"}
        updated |= {int(line[1:]) for line in lines if line[0] == "u"}
        if round_number % 5 == 4:  # and the index is lost, too
            for path in tmp_path.glob("incidents.db*"):
                path.unlink()
        with IncidentStore(tmp_path) as store:
            found = {one.id: one for one in store.list()}
        assert created <= found.keys()
        assert all(found[number].outcome == "updated" for number in updated)
        if round_number >= 19 and len(created) > 20:
            return
    pytest.fail(f"only {len(created)} incidents were made")

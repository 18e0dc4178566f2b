# SPDX-License-Identifier: GPL-2.0-or-later
"""The dump quota: what goes, in which order, and what never does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashdump import quota
from crashdump.incident import Dump, DumpState, IncidentState
from crashdump.quota import Kept, Limits, Usage, surplus
from crashdump.store import IncidentStore


def kept(*titles: str, size: int = 10) -> list[Kept]:
    return [Kept(number, title, size) for number, title in enumerate(titles, 1)]


def gone(dumps: list[Kept], limits: Limits, free: int = 1000) -> list[int]:
    return surplus(dumps, limits, Usage(len(dumps), sum(one.size for one in dumps), free))


def test_the_first_and_the_last_of_each_title_stay_longest() -> None:
    dumps = kept("a", "a", "b", "a", "a", "b", "c", "c")
    assert gone(dumps, Limits(dumps=6)) == [2, 4]
    assert gone(dumps, Limits(dumps=3)) == [2, 4, 1, 3, 7]
    assert gone(dumps, Limits(dumps=1)) == [2, 4, 1, 3, 7, 5, 6]


@pytest.mark.parametrize(
    ("limits", "free", "count"),
    [
        (Limits(), 0, 0),
        (Limits(bytes=45), 1000, 1),
        (Limits(free=30), 15, 2),
        (Limits(free=10_000), 0, 4),
        (Limits(dumps=4, bytes=20, free=1), 1000, 3),
    ],
)
def test_each_limit_counts(limits: Limits, free: int, count: int) -> None:
    assert len(gone(kept("a", "a", "a", "b", "b"), limits, free)) == count


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=30),
    st.builds(Limits, st.integers(0, 20), st.integers(0, 400), st.integers(0, 400)),
    st.integers(0, 400),
)
def test_no_more_goes_than_must(drawn: list, limits: Limits, free: int) -> None:
    dumps = [Kept(number, *one) for number, one in enumerate(drawn, 1)]
    out = gone(dumps, limits, free)
    assert len(set(out)) == len(out)
    assert not dumps or dumps[-1].incident not in out

    def fits(removed: list[int]) -> bool:
        left = [one for one in dumps if one.incident not in removed]
        freed = free + sum(one.size for one in dumps if one.incident in removed)
        return (
            (not limits.dumps or len(left) <= limits.dumps)
            and (not limits.bytes or sum(one.size for one in left) <= limits.bytes)
            and (not limits.free or freed >= limits.free)
        )

    assert fits(out) or len(out) == len(dumps) - 1 or not dumps
    assert not out or not fits(out[:-1])


@pytest.fixture
def store(tmp_path):
    with IncidentStore(tmp_path) as made:
        yield made


def incident(store, title: str, state=DumpState.DONE, closed: bool = True) -> int:
    one = store.create(vnode=1, name="one", incarnation=1, reason="panic", crash=True)
    for name in ("vmcore", "low.raw"):
        (store.path(one.id) / name).write_bytes(bytes(8192))
    store.update(one.id, title=title, dump=Dump(state=state, path="vmcore", stored=8192))
    if closed:
        store.finish(one.id, IncidentState.COMPLETE)
    return one.id


def test_memory_goes_and_the_record_stays(store) -> None:
    numbers = [incident(store, "a") for _ in range(4)]
    assert quota.usage(store).dumps == 4
    assert quota.apply(store, Limits(dumps=3)) == [numbers[1]]
    one = store.get(numbers[1])
    assert (one.dump.state, one.dump.path, one.title) == (DumpState.REMOVED, "", "a")
    assert "quota" in one.dump.reason
    assert sorted(path.name for path in store.path(one.id).iterdir()) == ["incident.json"]
    assert quota.usage(store).dumps == 3
    assert quota.apply(store, Limits(dumps=3)) == []


def disk(monkeypatch, store, capacity: int) -> None:
    """A disk on which the dumps of the store are all there is."""

    def free(_store: IncidentStore) -> int:
        return capacity - sum(quota.size(store, one) for one in store.list())

    monkeypatch.setattr(quota, "disk_free", free)


BESIDE = quota.HEADER_SPACE + quota.RESERVE
"""What a dump needs beside its memory."""


def test_room_is_made_before_a_dump_and_nothing_goes_in_vain(store, monkeypatch) -> None:
    numbers = [incident(store, "a") for _ in range(4)]
    one = quota.size(store, store.get(numbers[0]))
    disk(monkeypatch, store, 4 * one + BESIDE + 100)
    limits = Limits(dumps=200)
    assert quota.make_room(store, limits, 100) == []  # fits as it is
    assert quota.make_room(store, limits, 5 * one) == []  # would not fit even then
    assert quota.make_room(store, Limits(), one) == []  # no quota: all are to be kept
    assert quota.make_room(store, limits, one + 100) == [numbers[1]]
    assert quota.make_room(store, limits, one + 100) == []
    assert quota.make_room(store, Limits(free=quota.RESERVE + 1), one + 100) == [numbers[2]]
    # the newest of now is not the newest any more
    assert quota.make_room(store, limits, 4 * one) == [numbers[0], numbers[3]]


def test_a_dump_is_expected_as_large_as_the_vnodes_others(store) -> None:
    assert quota.expected(store, 1, 1 << 20) == 1 << 20
    one = quota.size(store, store.get(incident(store, "a")))
    assert quota.expected(store, 1, 1 << 20) == one * 5 // 4
    assert quota.expected(store, 1, 1000) == 1000
    assert quota.expected(store, 2, 1 << 20) == 1 << 20


@pytest.mark.parametrize("state", [DumpState.HELD, DumpState.COPIED, DumpState.WRITING])
def test_what_is_unfinished_stays(store, state) -> None:
    pending = incident(store, "a", state)
    being_handled = incident(store, "a", closed=False)
    done = [incident(store, "a") for _ in range(3)]
    assert quota.apply(store, Limits(dumps=1)) == [done[1], done[0]]
    for number in (pending, being_handled, done[2]):
        assert (store.path(number) / "vmcore").exists()


def test_a_killed_removal_is_finished_the_next_time(store, monkeypatch) -> None:
    numbers = [incident(store, "a") for _ in range(3)]

    def killed(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            quota.apply(store, Limits(dumps=2))
    assert store.get(numbers[1]).dump.state is DumpState.REMOVED
    assert (store.path(numbers[1]) / "vmcore").exists()
    assert quota.apply(store, Limits(dumps=2)) == []
    left = [n for n in numbers if (store.path(n) / "vmcore").exists()]
    assert left == [numbers[0], numbers[2]]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorded ring: a point a second, what changed, where one vnode left the rest."""

from tui.look import Look
from tui.recorder import Mark, Point, Recorder, divergence, events


def mark(state="running", rates=(10.0, 10.0, 10.0), **changes):
    return Mark("v", state, 1, rates, 0, 0)._replace(**changes)


def test_a_point_a_second_and_no_more_than_the_ring_holds():
    ring = Recorder(seconds=5)
    for tenth in range(100):
        ring.add(Look(wall=1000 + tenth / 10))
    assert len(ring.points) == 5
    assert ring.points[-1].wall - ring.points[0].wall == 4


def test_a_clock_that_is_set_back_begins_anew():
    ring = Recorder()
    ring.add(Look(wall=1000))
    ring.add(Look(wall=10))
    assert [point.wall for point in ring.points] == [10]


def test_a_look_that_saw_nothing_is_no_point():
    assert not Recorder().add(Look(wall=1, problem="no machine"))


def test_changes_are_told_in_order():
    points = [
        Point(1, "", {1: mark()}),
        Point(2, "", {1: mark("crashed", incident=3)}),
        Point(3, "dead", {1: mark("crashed", incident=3, holder=9)}),
    ]
    assert [(one.vnode, one.text) for one in events(points)] == [
        (1, "running -> crashed"),
        (1, "incident 3"),
        (0, "dead"),
        (1, "a debugger took it, pid 9"),
    ]


def test_the_first_to_leave_the_rest_is_found():
    together = Point(1, "", {1: mark(), 2: mark()})
    hung = Point(2, "", {1: mark(), 2: mark(rates=(10.0, 0.0, 0.0))})
    assert divergence([together, hung]) == (1, 2)
    assert divergence([together, together]) is None
    assert divergence([hung]) is None

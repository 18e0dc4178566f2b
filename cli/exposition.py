# SPDX-License-Identifier: GPL-2.0-or-later
"""Prometheus' text format (version 0.0.4), and what of the vnodes is told in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from adeos import abi
from cli import observe, output
from watchdog.observe import LAYERS

if TYPE_CHECKING:
    from crashdump.incident import Incident
    from crashdump.quota import Usage
    from watchdog.qos import Detection, Mistakes

TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, object]


class Family(NamedTuple):
    """A metric: its name without prefix, its kind (gauge, counter), a line of help, its values."""

    name: str
    kind: str
    help: str
    samples: Iterable[tuple[Labels, float | int]]


def render(families: Iterable[Family]) -> str:
    """The text of all."""
    lines = []
    for name, kind, words, samples in families:
        lines += [f"# HELP vnode_debug_{name} {words}", f"# TYPE vnode_debug_{name} {kind}"]
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escape(str(text))}"' for key, text in labels.items())
            where = f"{{{inner}}}" if inner else ""
            lines.append(f"vnode_debug_{name}{where} {value!r}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """A label's value; what a vnode wrote may hold anything."""
    return output.clean(text).replace("\\", r"\\").replace('"', r"\"")


def machine(now: observe.Snapshot) -> list[Family]:
    """From shared memory: the daemon and the vnodes' states and beats."""
    return [*_daemon(now), *_vnodes(now)]


def _daemon(now: observe.Snapshot) -> Iterator[Family]:
    watching = observe.daemon(now) is observe.Daemon.WATCHING
    yield Family("up", "gauge", "1 while the daemon watches.", [({}, int(watching))])
    head = now.head
    if head is None:
        return
    yield Family("daemon_epoch", "counter", "Daemons since boot.", [({}, head.epoch)])
    yield Family("ticks_total", "counter", "Watch ticks of this daemon.", [({}, head.beat)])
    late, words = head.late_ticks, "Watch ticks that came late."
    yield Family("late_ticks_total", "counter", words, [({}, late)])
    age = now.seconds(head.beat_tsc)
    if age is not None:
        yield Family("tick_age_seconds", "gauge", "Time since the last watch tick.", [({}, age)])


def _vnodes(now: observe.Snapshot) -> Iterator[Family]:
    known = [(one.status, _labels(one.status)) for one in now.samples]
    states = [
        ({**labels, "state": state.name.lower()}, int(status.state is state))
        for status, labels in known
        for state in abi.StatusState
    ]
    yield Family("state", "gauge", "1 for the state that a vnode is in.", states)
    starts = [(labels, status.incarnation) for status, labels in known]
    yield Family("incarnation", "counter", "Starts of a vnode.", starts)
    restarts = [(labels, status.restarts) for status, labels in known]
    yield Family("restarts_total", "counter", "Restarts of a vnode.", restarts)
    left = [(la, s.restarts_left) for s, la in known if s.restarts_left != abi.VN_NEVER]
    yield Family("restarts_left", "gauge", "Restarts of a vnode before quarantine.", left)
    armed = [(_labels(s.status), int(s.fire == "armed")) for s in now.samples if s.fire]
    words = "1 while kmb.ko would restart a vnode without a daemon, 0 when it has tried."
    yield Family("fire_armed", "gauge", words, armed)
    beats = [
        ({**_labels(sample.status), "cpu": cpu, "layer": layer}, beat.count[index])
        for sample in now.samples
        for cpu, beat in enumerate(sample.beats)
        for index, layer in enumerate(LAYERS)
    ]
    yield Family("beats_total", "counter", "Beats of a CPU in a layer, this incarnation.", beats)


def _labels(status: abi.Status) -> Labels:
    return {"vnode": status.id, "name": status.name}


def incidents(found: list[Incident], detected: Mapping[str, Detection]) -> list[Family]:
    """From the incident store."""
    counts = Counter((one.vnode, one.name, one.reason) for one in found)
    times: list[tuple[Labels, float]] = []
    for reason, one in detected.items():
        for word, value in (("0.5", one.p50), ("0.99", one.p99), ("1", one.max)):
            times.append(({"reason": reason, "quantile": word}, value))
    return [
        Family(
            "incidents_total",
            "counter",
            "Recorded incidents.",
            [({"vnode": v, "name": n, "reason": r}, c) for (v, n, r), c in sorted(counts.items())],
        ),
        Family("detection_seconds", "gauge", "T_D, fault to seen, of all incidents kept.", times),
        Family(
            "detections",
            "gauge",
            "Incidents that detection_seconds is drawn from.",
            [({"reason": reason}, one.faults) for reason, one in detected.items()],
        ),
    ]


def mistakes(found: Mapping[int, Mistakes]) -> list[Family]:
    """From the event log."""
    rows = [({"vnode": number, "name": one.name}, one) for number, one in sorted(found.items())]

    def family(name: str, kind: str, words: str, value: Callable[[Mistakes], float]) -> Family:
        return Family(name, kind, words, [(labels, value(one)) for labels, one in rows])

    return [
        family(
            "mistakes_total",
            "counter",
            "Suspicions that ended without a fault, in the event log.",
            lambda one: one.count,
        ),
        family("mistake_seconds_total", "counter", "Time in them.", lambda one: one.seconds),
        family("watched_seconds_total", "counter", "Time watched.", lambda one: one.watched),
        family("mistake_rate", "gauge", "lambda_M: mistakes a second.", lambda one: one.rate),
        family(
            "query_accuracy",
            "gauge",
            "P_A: part of the time in which the verdict was right.",
            lambda one: one.accuracy,
        ),
    ]


def dumps(used: Usage) -> list[Family]:
    """From the disk."""
    return [
        Family("dumps", "gauge", "Dumps on the disk.", [({}, used.dumps)]),
        Family("dump_bytes", "gauge", "Bytes of the disk that dumps take.", [({}, used.bytes)]),
        Family("dump_disk_free_bytes", "gauge", "Bytes free beside them.", [({}, used.free)]),
    ]

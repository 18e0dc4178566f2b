# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be seen of the vnodes in shared memory, with or without a daemon.

take() copies what the root bridge and the vnodes' bridges say; describe()
compares two such copies and draws conclusions.  Limits: a vnode can write
anything into its bridge, so its beats prove nothing against malice; states are
the daemon's word and grow stale when it is dead, which the root's row says.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from adeos import abi
from adeos.bridge import Bridge, RootBridge
from adeos.errors import AdeosError
from adeos.peers import Granted
from watchdog.successor import LIMIT_S

if TYPE_CHECKING:
    from adeos.machine import Binding, Machine

LAYERS = tuple(layer.name.lower() for layer in abi.Layer)
LATE_PERIODS = 50
"""A watch tick that is this many periods old (and a second at least) is told as late."""


class Sample(NamedTuple):
    """One vnode at one moment."""

    status: abi.Status
    binding: Binding | None
    agent: abi.VnodeSide | None
    beats: tuple[abi.Beat, ...]
    fault: str
    """Why its bridge cannot be read, or ""."""
    fire: str = ""
    """The in-kernel fire: see Row."""


class Snapshot(NamedTuple):
    """All vnodes at one moment; tsc in cycles."""

    tsc: int
    tsc_khz: int
    owner_pid: int
    head: abi.RootHead | None
    last: abi.Last | None
    """The root kernel's own signs of life; None where they are not seen."""
    samples: tuple[Sample, ...]

    def seconds(self, since_tsc: int) -> float | None:
        """Time from a TSC value to this snapshot; None when it was never, or lies ahead."""
        if not 0 < since_tsc <= self.tsc:
            return None
        return (self.tsc - since_tsc) / (self.tsc_khz * 1000)


class Layer(NamedTuple):
    """Beats of one layer of one CPU."""

    beats: int
    rate_hz: float | None
    """Between the two snapshots; None when unknown."""
    age_s: float | None


class Row(NamedTuple):
    """One vnode as status shows it; the root is row 0."""

    id: int
    name: str
    state: str
    reason: str
    state_age_s: float | None
    incarnation: int
    uptime_s: float | None
    cpus: tuple[int, ...]
    memory: int
    region: int
    restarts: int
    restarts_left: int | None
    """By itself before quarantine, as of its last change of state; None = its policy never does."""
    incidents: int
    last_incident: int
    release: str
    way: str
    """How it was brought up last: cold, warm or standby."""
    image_age_s: float | None
    """Of the image that the next restart would take, None = it would boot."""
    fire: str
    """armed: kmb.ko restarts it when it dies and no daemon is there; fired, refused or failed:
    it tried, and a daemon is still to hear of it; "": neither."""
    grants: tuple[int, ...]
    """The vnodes that this one may look at."""
    beats: tuple[dict[str, Layer], ...]
    """One entry a CPU; the root has its daemon's watch tick as the only layer."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        row = self._asdict()
        row["beats"] = [{k: v._asdict() for k, v in cpu.items()} for cpu in self.beats]
        return row


def take(machine: Machine) -> Snapshot:
    """Copy what can be seen now.  BridgeError when the root bridge is not of this ABI.

    A vnode sees no root bridge, unless it succeeds the root: `head` is None, and the samples are
    of what it was granted.  The successor sees all, but beats of what it was granted alone.
    """
    info = machine.info()
    bridge = RootBridge.open(machine) if info.root_pa else None
    head = bridge.head() if bridge is not None else None
    last = bridge.last() if bridge is not None else None
    seen = bridge.statuses() if bridge is not None and head is not None else statuses(machine)
    samples = tuple(_sample(machine, status) for status in seen)
    owner = info.owner_pid
    if head is not None and isinstance(machine, Granted):
        owner = head.pid  # who owns the machine is not seen from here
    return Snapshot(machine.tsc(), max(info.tsc_khz, 1), owner, head, last, samples)


def statuses(machine: Machine) -> list[abi.Status]:
    """What the daemon says of each vnode that can be seen from here, by id."""
    if isinstance(machine, Granted):
        return sorted((status for _, status in machine.grants()), key=lambda status: status.id)
    root = RootBridge.open(machine)
    return root.statuses() if root.head() is not None else []


def _sample(machine: Machine, status: abi.Status) -> Sample:
    binding: Binding | None = None
    agent: abi.VnodeSide | None = None
    beats: tuple[abi.Beat, ...] = ()
    fault = word = ""
    try:
        binding = machine.query(status.id)
        fire = machine.fire(status.id)
        word = fire.state.name.lower() if fire is not None else ""
        if binding is not None and binding.started:
            bridge = Bridge.open(machine, binding.region)
            agent = bridge.vnode_side()
            beats = bridge.beats(status.ncpus)
    except AdeosError as error:
        fault = str(error)
    return Sample(status, binding, agent, beats, fault, word)


class Daemon(Enum):
    """What can be said of the daemon from outside; the values are the root row's states."""

    WATCHING = "watching"
    """It owns the machine and its watch tick is fresh."""
    LATE = "late"
    """It owns the machine, but its tick is old: it hangs, or the root has too little CPU."""
    DEAD = "unwatched"
    """Nobody owns the machine."""
    CRASHED = "crashed"
    """The root's own kernel has panicked: seen by its successor."""
    SILENT = "silent"
    """Its kernel beats no more: it hangs, or stands still."""
    HALTED = "halted"
    """It was shut down in order."""


KERNEL_ENDS = frozenset({Daemon.CRASHED, Daemon.SILENT, Daemon.HALTED})


def daemon(now: Snapshot) -> Daemon:
    """The daemon's state; a machine no daemon ever took over is unwatched too."""
    kernel = _kernel_state(now)
    if kernel is not None:
        return kernel
    if now.head is None or not now.owner_pid:
        return Daemon.DEAD
    age = now.seconds(now.head.beat_tsc)
    limit = max(1.0, LATE_PERIODS * now.head.period_us / 1e6)
    return Daemon.WATCHING if age is not None and age < limit else Daemon.LATE


def _kernel_state(now: Snapshot) -> Daemon | None:
    """What the root's kernel says of itself, None while it runs or says nothing."""
    if now.last is None:
        return None
    if now.last.state is not abi.LastState.ALIVE:
        panicked = now.last.state is abi.LastState.PANIC
        return Daemon.CRASHED if panicked else Daemon.HALTED
    age = now.seconds(now.last.beat_tsc)
    return Daemon.SILENT if age is not None and age > LIMIT_S else None


def describe(before: Snapshot, now: Snapshot) -> list[Row]:
    """The root's row where its bridge is seen, then one a vnode by id."""
    earlier = {sample.status.id: sample for sample in before.samples}
    root = [_root(before, now, now.head)] if now.head is not None else []
    return root + [_row(sample, earlier.get(sample.status.id), now) for sample in now.samples]


def _root(before: Snapshot, now: Snapshot, head: abi.RootHead) -> Row:
    state = daemon(now)
    words = {Daemon.WATCHING: "", Daemon.LATE: " is late", Daemon.DEAD: " is dead"}
    reason = f"daemon {head.pid}{words.get(state, '')}" if head.pid else "the daemon was ended"
    since = head.start_tsc if state is Daemon.WATCHING else head.beat_tsc
    if now.last is not None and state in KERNEL_ENDS:
        reason = now.last.message if state is Daemon.CRASHED else "its kernel beats no more"
        since = now.last.beat_tsc if state is Daemon.SILENT else now.last.tsc
    was = before.head if before.head is not None and before.head.epoch == head.epoch else None
    tick = Layer(
        head.beat,
        _rate(was.beat, was.beat_tsc, head.beat, head.beat_tsc, now) if was else None,
        now.seconds(head.beat_tsc),
    )
    return Row(
        id=0,
        name="root",
        state=state.value,
        reason=reason,
        state_age_s=now.seconds(since),
        incarnation=head.epoch,
        uptime_s=now.seconds(head.start_tsc),
        cpus=(),
        memory=0,
        region=0,
        restarts=0,
        restarts_left=None,
        incidents=sum(s.status.incidents for s in now.samples),
        last_incident=max((s.status.last_incident for s in now.samples), default=0),
        release=now.last.release if now.last is not None else "",
        way="",
        image_age_s=None,
        fire="",
        grants=(),
        beats=({"tick": tick},),
    )


def _row(sample: Sample, earlier: Sample | None, now: Snapshot) -> Row:
    status, binding = sample.status, sample.binding
    running = binding is not None and binding.started > 0
    return Row(
        id=status.id,
        name=status.name,
        state=status.state.name.lower(),
        reason=status.reason or sample.fault,
        state_age_s=now.seconds(status.since_tsc),
        incarnation=status.incarnation,
        uptime_s=now.seconds(binding.start_tsc) if binding is not None and running else None,
        cpus=status.cpu[: status.ncpus],
        memory=status.region_size,
        region=status.region_base,
        restarts=status.restarts,
        restarts_left=None if status.restarts_left == abi.VN_NEVER else status.restarts_left,
        incidents=status.incidents,
        last_incident=status.last_incident,
        release=sample.agent.release if sample.agent is not None else "",
        way=status.way.name.lower(),
        image_age_s=_image_age(status, now),
        fire=sample.fire,
        grants=_ids(status.grants),
        beats=tuple(_cpu(sample, earlier, cpu, now) for cpu in range(len(sample.beats))),
    )


def _image_age(status: abi.Status, now: Snapshot) -> float | None:
    frozen = status.standby_tsc or status.image_tsc
    return now.seconds(frozen) if frozen else None


def _ids(bitmap: int) -> tuple[int, ...]:
    return tuple(vnode for vnode in range(1, abi.VN_MAX_VNODES) if bitmap >> vnode & 1)


def _cpu(sample: Sample, earlier: Sample | None, cpu: int, now: Snapshot) -> dict[str, Layer]:
    beat = sample.beats[cpu]
    same = earlier is not None and earlier.status.incarnation == sample.status.incarnation
    was = earlier.beats[cpu] if same and earlier and cpu < len(earlier.beats) else None
    return {
        name: Layer(
            beat.count[i],
            _rate(was.count[i], was.tsc[i], beat.count[i], beat.tsc[i], now) if was else None,
            now.seconds(beat.tsc[i]),
        )
        for i, name in enumerate(LAYERS)
    }


def slowest(row: Row, layer: str) -> float | None:
    """Beats a second of the CPU that beats least in a layer; None when one is unknown."""
    rates = [cpu[layer].rate_hz for cpu in row.beats if layer in cpu]
    known = [rate for rate in rates if rate is not None]
    return min(known) if known and len(known) == len(rates) else None


def _rate(count0: int, tsc0: int, count1: int, tsc1: int, now: Snapshot) -> float | None:
    """Beats a second between two beats; 0 when none came, None when they make no sense."""
    if count1 == count0:
        return 0.0
    if count1 < count0 or tsc1 <= tsc0:
        return None
    return (count1 - count0) * now.tsc_khz * 1000 / (tsc1 - tsc0)

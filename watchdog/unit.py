# SPDX-License-Identifier: GPL-2.0-or-later
"""One vnode as the daemon holds it: config, supervised state, what it owns, how it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from adeos import abi, loader
from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.errors import BridgeError
from adeos.machine import Binding, Machine
from crashdump.incident import Witness
from watchdog.actions import Action
from watchdog.config import VnodeConfig
from watchdog.detector import STRIDE, Accrual, BootWatch, Detector
from watchdog.ledger import Entry
from watchdog.supervisor import Vnode
from watchdog.warmth import Warmth

Counts = tuple[int, ...]

LEASE_PERIOD_MS = 100
"""How late the end of a debugger's hold may be seen; asking costs more than a tick."""


class Watched:
    """What the watch tick needs of one incarnation, prepared so that a tick is cheap."""

    def __init__(
        self, bridge: Bridge, config: VnodeConfig, incarnation: int, tsc_khz: int, now: int
    ) -> None:
        self.bridge = bridge
        self.incarnation = incarnation
        watch = config.watch
        accrual = None
        if watch.judge == "phi":
            accrual = Accrual(watch.phi, watch.pause_ms * tsc_khz)
        limits = [layer.limit_ms * tsc_khz for layer in watch.layers]
        lead = 0 if accrual else watch.probe_lead_ms * tsc_khz
        self.detector = Detector(len(config.cpus), limits, accrual, lead=lead)
        self.due = 0
        """TSC of the next look, unless a portal rings."""
        self.boot = BootWatch(now, config.watch.boot_timeout_ms * tsc_khz)
        self.jiffies_limit = config.watch.jiffies.limit_ms * tsc_khz
        self.counts: Callable[[], Counts] = bridge.beat_counts(len(config.cpus))
        self.stamps: Callable[[], Counts] = bridge.beat_stamps(len(config.cpus))
        self.lease_period = LEASE_PERIOD_MS * tsc_khz
        self.ask_lease = 0
        """TSC at which the lease of a held vnode is looked at again."""
        self.late = ""
        """What a kernel without an agent does not get done: vitals.py."""
        self.released = now
        """TSC of the last end of a debugger's control that its silence was excused by."""
        self.malformed = 0
        """Ticks in a row in which the bridge held what no agent writes."""

    def word(self) -> abi.State:
        """What the agent of this incarnation says; NONE before it spoke.  BridgeError."""
        get, view = abi.VNODE_SIDE.get, self.bridge.view
        version = get(view, abi.VN_BR_VNODE, "abi")
        if version == 0:
            return abi.State.NONE
        if version != abi.VN_ABI_VERSION:
            raise BridgeError(f"vn_vnode_side.abi is {version}")
        if get(view, abi.VN_BR_VNODE, "incarnation") != self.incarnation:
            return abi.State.NONE
        side = get(view, abi.VN_BR_VNODE, "state")
        return abi.State(side)

    def ready_since(self, now: int) -> int:
        """TSC of its first user beat, which it stamps itself; `now` where that cannot be true."""
        beats = self.stamps()[abi.Layer.USER :: STRIDE]
        return min((tsc for tsc in beats if self.boot.started <= tsc <= now), default=now)


@dataclass
class Unit:
    """Mutable, owned by the event loop's thread."""

    config: VnodeConfig
    vnode: Vnode
    region: Range | None = None
    slot: Range | None = None
    binding: Binding | None = None
    bridge: Bridge | None = None
    """Writable, over the current region."""
    watched: Watched | None = None
    entry: Entry | None = None
    """The open incident."""
    last_incident: int = 0
    stamps: dict[str, int] = field(default_factory=dict)
    """TSC of the steps since the last fault: fault, reported, seen, fenced, ..."""
    queue: asyncio.Queue[Action] = field(default_factory=asyncio.Queue)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set and replaced at each change of state."""
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it rings its portal."""
    published: abi.Status | None = None
    """What the root bridge says of it."""
    since_tsc: int = 0
    apicids: tuple[int, ...] = ()
    gathered: str = ""
    """How the registers of the last fault were had: record, nmi or nothing."""
    answered: tuple[int, ...] | None = None
    """The CPUs that saved their registers by NMI for the last fault; None = nobody asked."""
    witnesses: tuple[Witness, ...] = ()
    """The other live vnodes' beats when the last fault was seen."""
    strategy: str = ""
    coming: VnodeConfig | None = None
    """The config from its next start on, when a reload has changed it."""
    start_at: loader.Entry | None = None
    """How to start what was composed."""
    warm: Warmth = field(default_factory=Warmth)
    grants: set[int] = field(default_factory=set)
    """Ids of the vnodes that this one may look at."""
    controls: set[int] = field(default_factory=set)
    """Those of them that it may also control."""

    succeeds: bool = False
    """It may look at the root, and watches it."""

    def __post_init__(self) -> None:
        self.grant_as(self.config)

    def grant_as(self, config: VnodeConfig) -> None:
        """It may look at and control what a config says, and no more."""
        self.grants = {one.vnode for one in config.grants}
        self.controls = {one.vnode for one in config.grants if one.control}

    @property
    def id(self) -> int:
        """The vnode's id."""
        return self.config.id

    @property
    def label(self) -> str:
        """`vnode 2 "web"`."""
        return f'vnode {self.config.id} "{self.config.name}"'

    def takes_nmi(self) -> bool:
        """Whether its kernel has the agent's NMI handler: another would take it for bad hardware.

        An unreadable bridge does not say that the agent is gone.
        """
        if self.bridge is None or not self.config.watch.agent:
            return False
        try:
            side = self.bridge.vnode_side()
        except BridgeError:
            return True
        return side is not None and side.incarnation == self.vnode.incarnation

    def place(self, machine: Machine, region: Range) -> None:
        """The vnode's memory is `region` now."""
        self.region = region
        self.bridge = Bridge.open(machine, region, writable=True)

    def unplace(self) -> None:
        """The vnode owns nothing any more."""
        self.region = self.slot = self.binding = self.bridge = self.watched = None

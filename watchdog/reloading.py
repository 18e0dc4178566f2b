# SPDX-License-Identifier: GPL-2.0-or-later
"""What a changed config does to a daemon that runs.  Pure but for `reload` at the end.

Nothing about a vnode that is bound to CPUs and memory is touched: what
concerns its policy holds at once, what concerns its kernel at its next start,
and what concerns its CPUs, memory or name not before it has been stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from kexec_restart.images import Spec
from watchdog import config as configs
from watchdog import events, log, succession
from watchdog.config import Config, MachineConfig, VnodeConfig, Watch
from watchdog.staging import spec_of
from watchdog.supervisor import Vnode
from watchdog.unit import Unit

if TYPE_CHECKING:
    from watchdog.service import Service

AT_ONCE = ("restart", "autostart", "grants")
WHEN_STOPPED = ("name", "cpus", "memory", "devices")
AT_START = tuple(
    key for key in VnodeConfig.__struct_fields__ if key not in ("id", *AT_ONCE, *WHEN_STOPPED)
)
"""Of [[vnode]]; a key that is new to this module comes at a start, too."""
NEW_DAEMON = tuple(key for key in Watch.__struct_fields__ if key != "hold")
"""Of [watch]."""
TABLES = ("dumps", "hooks")
"""Applied at once; other tables not by this daemon."""


class Plan(NamedTuple):
    """`config`: what holds from now on.  The rest are lines for people."""

    config: Config
    applied: tuple[str, ...]
    later: tuple[str, ...]
    refused: tuple[str, ...]


class _Words:
    """The lines of a plan while it is made."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.later: list[str] = []
        self.refused: list[str] = []


def plan(old: Config, new: Config, bound: Container[int]) -> Plan:
    """What of `new` holds now, later, or not; `bound`: the vnodes that have CPUs and memory."""
    words = _Words()
    watch = _tables(old, new, words)
    vnodes: list[VnodeConfig] = []
    before = {vnode.id: vnode for vnode in old.vnode}
    for vnode in new.vnode:
        was = before.pop(vnode.id, None)
        if was is None:
            words.applied.append(f"{_label(vnode)}: new")
        vnodes.append(vnode if was is None else _merge(was, vnode, vnode.id in bound, words))
    for was in before.values():
        if was.id in bound:
            words.refused.append(f"{_label(was)}: is not in the file, but runs; stop it, reload")
            vnodes.append(was)
        else:
            words.applied.append(f"{_label(was)}: gone")
    kept = {key: getattr(old, key) for key in Config.__struct_fields__ if key not in TABLES}
    kept |= {"watch": watch, "vnode": tuple(vnodes), "machine": _machine(old, new, words)}
    config = msgspec.structs.replace(new, **kept)
    return Plan(config, tuple(words.applied), tuple(words.later), tuple(words.refused))


def _machine(old: Config, new: Config, words: _Words) -> MachineConfig:
    """The [machine] that holds: of it only the successor can change."""
    successor = new.machine.successor
    if successor != old.machine.successor:
        words.applied.append("[machine] successor")
    return msgspec.structs.replace(old.machine, successor=successor)


def _tables(old: Config, new: Config, words: _Words) -> Watch:
    """The tables that are not about one vnode; the [watch] that holds."""
    others = set(Config.__struct_fields__) - {"watch", "vnode", *TABLES}
    words.refused += [
        f"[{key}]: kmb.ko is loaded with it; down --unload, then up"
        if key == "machine"
        else f"[{key}]: end the daemon (down --keep-running), then up"
        for key in sorted(others)
        if _fixed(new, key) != _fixed(old, key)
    ]
    kept = {key: getattr(old.watch, key) for key in NEW_DAEMON}
    words.refused += [
        f"[watch] {key}: end the daemon (down --keep-running), then up"
        for key in NEW_DAEMON
        if getattr(new.watch, key) != kept[key]
    ]
    watch = msgspec.structs.replace(new.watch, **kept)
    words.applied += ["[watch]"] if watch != old.watch else []
    words.applied += [f"[{key}]" for key in TABLES if getattr(new, key) != getattr(old, key)]
    return watch


def _fixed(config: Config, key: str) -> object:
    """What of a table cannot change while a daemon runs."""
    table = getattr(config, key)
    return msgspec.structs.replace(table, successor="") if key == "machine" else table


def _merge(was: VnodeConfig, new: VnodeConfig, bound: bool, words: _Words) -> VnodeConfig:
    """The config of a vnode that was there before."""
    keep: dict[str, object] = {}
    for key in AT_ONCE + AT_START + WHEN_STOPPED:
        if getattr(was, key) == getattr(new, key):
            continue
        if not bound or key in AT_ONCE:
            words.applied.append(f"{_label(was)}: {key}")
        elif key in AT_START:
            words.later.append(f"{_label(was)}: {key}, at its next start")
        else:
            words.refused.append(f"{_label(was)}: {key}: it runs; stop it, then reload")
            keep[key] = getattr(was, key)
    return msgspec.structs.replace(new, **keep)


def _label(vnode: VnodeConfig) -> str:
    return f"vnode {vnode.id} ({vnode.name})"


async def reload(service: Service) -> Plan:
    """Read the config file and do what can be done; ConfigError or ImageError change nothing."""
    new = await asyncio.to_thread(configs.load, service.config_path)
    bound = {unit.id for unit in service.units.values() if unit.binding is not None}
    found = plan(service.config, new, bound)
    images, stage = dict[int, Spec](), service.staging.stage
    replaced = {spec for spec in map(spec_of, found.config.vnode) if stage.replaced(spec)}
    for vnode in found.config.vnode:
        old, spec = service.config.find(vnode.id), spec_of(vnode)
        same = old is not None and spec_of(old) == spec
        if same and spec not in replaced:
            continue
        image = images[vnode.id] = await asyncio.to_thread(stage.add, spec)
        if same and image != service.units[vnode.id].vnode.slots.named:
            line = f"{_label(vnode)}: files of other content, at its next start"
            found = found._replace(later=(*found.later, line))
    service.config = found.config
    service.executor.dumps.hold = found.config.watch.hold
    service.executor.firing.hold = found.config.watch.hold
    service.executor.dumps.limits = found.config.dumps.limits
    service.hooks.config = found.config.hooks
    service.spawn(service.executor.dumps.keep_quota())
    for number in set(service.units) - {vnode.id for vnode in found.config.vnode}:
        service.dismiss(service.units.pop(number))
    for vnode in found.config.vnode:
        _apply(service, vnode, images.get(vnode.id))
    succession.appoint(service)
    for line in found.applied + found.later:
        log.write("info", "reload", what=line)
    for line in found.refused:
        log.write("warning", "reload", not_done=line)
    return found


def _apply(service: Service, vnode: VnodeConfig, image: Spec | None) -> None:
    unit = service.units.get(vnode.id)
    new = unit is None
    if unit is None:
        unit = service.units[vnode.id] = Unit(vnode, Vnode(policy=vnode.restart))
        service.hire(unit)
    if vnode.grants != unit.config.grants:
        before = unit.controls
        unit.grant_as(vnode)
        service.broker.drop(unit, before - unit.controls)
    unit.vnode = msgspec.structs.replace(unit.vnode, policy=vnode.restart)
    if unit.binding is None:
        unit.config = vnode
    else:
        kept = {key: getattr(unit.config, key) for key in AT_START}
        unit.config = msgspec.structs.replace(vnode, **kept)
        unit.coming = vnode
    if image is not None:
        service.staging.name(unit, image)
    service.publish(unit)
    service.spawn(service.executor.firing.settle(unit))
    if new and vnode.autostart:
        service.post(unit, events.StartRequested())

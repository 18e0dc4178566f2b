# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket's verbs about slots and quarantine; see verbs.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kexec_restart import slots as slotting
from kexec_restart.images import Spec
from kexec_restart.slots import NAMES, Health
from watchdog import events, requests
from watchdog.control import Reply, Send
from watchdog.errors import RefusedError
from watchdog.requests import UsageError
from watchdog.supervisor import refusal
from watchdog.unit import Unit

if TYPE_CHECKING:
    from watchdog.service import Service


async def stage(service: Service, request: Reply, send: Send) -> Reply:
    """Read an image into a slot: what is not named is as in the config."""
    unit = service.unit(request.get("vnode"))
    config = unit.config
    kernel = _path(request, "kernel", config.kernel)
    initrd = _path(request, "initrd", config.initrd)
    cmdline = config.words_with(requests.text(request, "cmdline", config.cmdline))
    name = _slot(request)
    if name == unit.vnode.slots.running and slotting.fallback(unit.vnode.slots):
        raise RefusedError(
            f"{unit.label} runs from slot {name}: stage into {slotting.other(name)}, so that it"
            " can fall back"
        )
    spec = Spec(kernel, initrd, cmdline, unpacked=config.fast_boot)
    name = await service.staging.add(unit, spec, name)
    service.spawn(service.executor.prepare(unit))
    return {"ok": True, "slot": name, **describe(unit)}


async def slots(service: Service, request: Reply, send: Send) -> Reply:
    """What is in the slots of a vnode."""
    return {"ok": True, **describe(service.unit(request.get("vnode")))}


async def bless(service: Service, request: Reply, send: Send) -> Reply:
    """Call a slot good (or bad), the running one when none is named; it is preferred if good."""
    unit = service.unit(request.get("vnode"))
    found = unit.vnode.slots
    name = _slot(request) or found.current
    if found.get(name).health is Health.EMPTY:
        raise RefusedError(f"{unit.label}: slot {name} is empty; stage an image first")
    if requests.flag(request, "bad"):
        service.staging.put(unit, slotting.condemned(found, name, "called bad by an operator"))
    else:
        service.staging.put(unit, slotting.preferred(slotting.blessed(found, name), name))
    service.spawn(service.executor.prepare(unit))
    return {"ok": True, "slot": name, **describe(unit)}


async def clear(service: Service, request: Reply, send: Send) -> Reply:
    """Out of quarantine: a fresh budget, CPUs and memory given back."""
    unit = service.unit(request.get("vnode"))
    wish = events.ClearRequested()
    why = refusal(unit.vnode, wish)
    if why:
        raise RefusedError(f"{unit.label} {why}")
    service.post(unit, wish)
    await unit.queue.join()
    service.check_stopped(unit)
    return {"ok": True, "id": unit.id, "name": unit.config.name, "state": unit.vnode.state.word}


VERBS = {"stage": stage, "slots": slots, "bless": bless, "clear": clear}


def describe(unit: Unit) -> Reply:
    """A vnode's slots for a reply."""
    return {"id": unit.id, "name": unit.config.name, **slotting.describe(unit.vnode.slots)}


def _slot(request: Reply) -> str | None:
    name = request.get("slot")
    if name is not None and name not in NAMES:
        raise UsageError(f"no slot {str(name)[:20]!r}; a vnode has {' and '.join(NAMES)}")
    return name


def _path(request: Reply, key: str, default: str) -> str:
    path = requests.text(request, key, default)
    if path and not Path(path).is_absolute():
        raise UsageError(f"{key} {path!r} is no absolute path")
    if "\0" in path or (key == "kernel" and not path):
        raise UsageError(f"{key} is no file name")
    return path

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the control socket understands: a function a verb, in VERBS.

A verb takes the request (a JSON object from a permitted peer, its values
unchecked) and returns the reply.  docs/control.md describes each.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from adeos import abi
from adeos.errors import AdeosError
from kexec_restart import strategies
from kexec_restart.strategies import Target
from watchdog import events, grants, log, portal, reloading, slot_verbs
from watchdog.config import Strategy
from watchdog.control import Reply, Send, Verb
from watchdog.errors import RefusedError, TimedOutError
from watchdog.ledger import Entry
from watchdog.requests import UsageError, flag, number
from watchdog.states import LIVE, Fault, State
from watchdog.supervisor import Wish, refusal, restarts_left
from watchdog.unit import Unit

if TYPE_CHECKING:
    from watchdog.service import Service

COMMAND_WAIT_S = 1.0
WAIT_MAX_S = 3600.0
STRATEGIES = get_args(Strategy)
COMMANDS = (abi.Cmd.PING, abi.Cmd.HALT, abi.Cmd.REBOOT, abi.Cmd.SYSRQ)
"""Those that leave nothing to do; a fault and a freeze are verbs of their own."""


def table(service: Service) -> dict[str, Verb]:
    """VERBS, and those about slots, bound to a daemon."""
    return {name: partial(verb, service) for name, verb in (VERBS | slot_verbs.VERBS).items()}


async def ping(service: Service, request: Reply, send: Send) -> Reply:
    """Whether the daemon lives, and how it feels."""
    pace = service.pace
    return {
        "ok": True,
        "pid": os.getpid(),
        "ticks": pace.ticks,
        "late_ticks": pace.late,
        "doubt": round(pace.doubt, 2),
        "storms": service.storms,
        "tick_us": service.tick_ns / 1000,
        "tick_max_us": service.tick_max_ns / 1000,
        "portals": service.portals,
        "false_alarms": sum(unit.vnode.false_alarms for unit in service.units.values()),
    }


async def status(service: Service, request: Reply, send: Send) -> Reply:
    """Every vnode's state; observers read shared memory instead."""
    return {"ok": True, "vnodes": [_describe(unit) for unit in service.units.values()]}


async def start(service: Service, request: Reply, send: Send) -> Reply:
    """Start a vnode that is down."""
    unit = _unit(service, request)
    wish = events.StartRequested(force=flag(request, "force"))
    _refuse(unit, wish)
    service.executor.placement.check_cpus(unit, list(service.units.values()))
    service.post(unit, wish)
    return _describe(unit) | {"ok": True}


async def stop(service: Service, request: Reply, send: Send) -> Reply:
    """Fence a vnode and give its CPUs and memory back.

    One whose fence failed before is fenced again, and the answer waits for that.
    """
    unit = _unit(service, request)
    again = unit.vnode.state is State.QUARANTINED and not unit.vnode.fenced
    service.post(unit, events.StopRequested())
    if again:
        await unit.queue.join()
        service.check_stopped(unit)
    return _describe(unit) | {"ok": True}


async def fence(service: Service, request: Reply, send: Send) -> Reply:
    """Park a vnode's CPUs for good and keep its memory as it is; answers when they are parked."""
    unit = _unit(service, request)
    wish = events.FenceRequested()
    _refuse(unit, wish)
    service.post(unit, wish)
    await unit.queue.join()
    if not unit.vnode.fenced:
        raise RefusedError(f"{unit.label} could not be fenced: {unit.vnode.reason}; see its events")
    return _describe(unit) | {"ok": True}


async def restart(service: Service, request: Reply, send: Send) -> Reply:
    """Fence a vnode and start it anew; with "dry_run" only say how a crash would be handled.

    "strategy": cold, warm or standby instead of the config's.
    """
    unit = _unit(service, request)
    if flag(request, "dry_run"):
        return {"ok": True, **_plan(service, unit, request.get("strategy"))}
    strategy = _strategy(service, unit, request.get("strategy") or "")
    wish = events.RestartRequested(force=flag(request, "force"))
    _refuse(unit, wish)
    service.executor.placement.check_cpus(unit, list(service.units.values()))
    unit.warm.wish = strategy
    service.post(unit, wish)
    return _describe(unit) | {"ok": True}


def _plan(service: Service, unit: Unit, name: object) -> Reply:
    """What becomes of a vnode that crashes: by its policy, or as if by the strategy `name`."""
    if unit.region is None:
        raise RefusedError(f"{unit.label} has no memory; start it first")
    policy, own = unit.config.restart.on_crash, unit.region
    capture = policy.startswith("coredump")
    spare, warm = service.executor.placement.peek(unit), service.executor.warm
    held = spare if capture and service.executor.dumps.hold else None
    strategy: strategies.Strategy | None
    if name is None:
        resumed = warm.prospect(unit) if policy.endswith("restart") else None
        strategy = resumed or strategies.after_crash(policy, own, held)
    elif name == "cold":
        strategy = strategies.choose(own, held, capture=capture)
    elif name in STRATEGIES:
        strategy = warm.prospect(unit, _strategy(service, unit, name))
    else:
        strategy = strategies.named(str(name), own, spare if name == "spare" else held)
    if strategy is None:
        known = ", ".join((*STRATEGIES, *strategies.NAMES))
        raise UsageError(f"no strategy {name!r}; known: {known}")
    target = Target(unit.id, unit.config.name, unit.config.cpus, own, capture)
    steps = [{"step": step.name, "does": step.text} for step in strategy.steps(target)]
    return {"strategy": strategy.name, "steps": steps}


def _strategy(service: Service, unit: Unit, wanted: object) -> str:
    """The strategy asked for, "" for the config's; RefusedError when it cannot be had."""
    if wanted not in ("", *STRATEGIES):
        raise UsageError(f"no strategy {wanted!r}; known: {', '.join(STRATEGIES)}")
    if wanted in ("", "cold"):
        return str(wanted)
    way = service.executor.warm.prospect(unit, str(wanted))
    if way is None or way.name != wanted:
        lacks = "has no standby" if wanted == "standby" else "has no image"
        raise RefusedError(
            f'{unit.label} {lacks}; "vnode-debug freeze {unit.id}" makes an image,'
            ' strategy = "standby" in its config a standby'
        )
    return str(wanted)


async def freeze(service: Service, request: Reply, send: Send) -> Reply:
    """Freeze a running vnode that is ready, keep its image, and let it go on."""
    unit = _unit(service, request)
    if unit.vnode.state is not State.RUNNING:
        raise RefusedError(f"{unit.label} is {unit.vnode.state.word}; it must be running")
    await asyncio.shield(service.executor.warm.freezer.request(unit))
    return _describe(unit) | {"ok": True, "images": _images(service, unit)}


async def images(service: Service, request: Reply, send: Send) -> Reply:
    """The images of frozen vnodes, or of one vnode."""
    unit = _unit(service, request) if "vnode" in request else None
    return {"ok": True, "images": _images(service, unit)}


def _images(service: Service, unit: Unit | None) -> list[dict[str, Any]]:
    found = service.executor.warm.describe()
    return [one for one in found if unit is None or one["vnode"] == unit.id]


async def wait(service: Service, request: Reply, send: Send) -> Reply:
    """Wait until a vnode is in one of the states; `incarnation`: that one or a later."""
    unit = _unit(service, request)
    wanted = _states(request)
    least = number(request, "incarnation", 0, 0, 1 << 32)
    limit = float(number(request, "timeout_ms", 60_000, 0, int(WAIT_MAX_S * 1000))) / 1000
    try:
        async with asyncio.timeout(limit):
            while unit.vnode.state not in wanted or unit.vnode.incarnation < least:
                await unit.changed.wait()
    except TimeoutError:
        words = " or ".join(sorted(state.word for state in wanted))
        raise TimedOutError(
            f"{unit.label} is {unit.vnode.state.word}, not {words}, after {limit:g} s"
        ) from None
    return _describe(unit) | {"ok": True}


async def dump(service: Service, request: Reply, send: Send) -> Reply:
    """Dump a vnode's memory without stopping it; recorded as an incident of reason "dump"."""
    unit = _unit(service, request)
    if unit.region is None or unit.bridge is None:
        raise RefusedError(f"{unit.label} has no memory; start it first")
    if unit.entry is not None or unit.vnode.state not in LIVE | {State.FENCED}:
        raise RefusedError(f"{unit.label} is {unit.vnode.state.word}; wait for it")
    executor = service.executor
    if unit.vnode.state in LIVE:
        await executor.save_registers(unit)
        unit.gathered = "nmi" if unit.answered else ""
    fault = Fault("dump", unit.vnode.incarnation, crash=False)
    case = executor.case_of(unit, fault)
    case = msgspec.structs.replace(case, stamps={}, witnesses=(), policy="operator")
    entry = Entry.of(case, unit.bridge)
    if not await executor.ledger.file(entry):
        raise entry.error or RefusedError(f"{unit.label}: no incident could be made; try again")
    incident = await executor.dumps.live(unit, entry)
    outcome = "live dump: pages are of different moments" if unit.vnode.state in LIVE else "dumped"
    await executor.ledger.finish(entry, outcome, {}, {}, None)
    return {
        "ok": True,
        "incident": entry.number,
        "dump": incident.dump.state.value,
        "reason": incident.dump.reason,
        "path": str(executor.ledger.directory / "incidents" / f"{entry.number:04d}"),
        "inconsistent": unit.vnode.state in LIVE,
    }


async def inject(service: Service, request: Reply, send: Send) -> Reply:
    """Have the vnode's agent cause a fault, when the config allows it."""
    unit = _unit(service, request)
    if not unit.config.inject:
        raise RefusedError(f"{unit.label}: its config has no inject = true; add it and restart it")
    kinds = {kind.name.lower(): kind for kind in abi.Inject}
    kind = kinds.get(str(request.get("kind")))
    if kind is None:
        raise UsageError(f"no fault {request.get('kind')!r}; known: {', '.join(kinds)}")
    cpu = number(request, "cpu", 0, 0, len(unit.config.cpus) - 1)
    return await _command(service, unit, abi.Cmd.INJECT, kind | cpu << 8)


async def command(service: Service, request: Reply, send: Send) -> Reply:
    """An orderly wish to the vnode's kernel: ping, halt, reboot, or sysrq with a key."""
    unit = _unit(service, request)
    known = {cmd.name.lower(): cmd for cmd in COMMANDS}
    cmd = known.get(str(request.get("command")))
    if cmd is None:
        raise UsageError(f"no command {request.get('command')!r}; known: {', '.join(known)}")
    key = str(request.get("key") or "")
    if cmd is abi.Cmd.SYSRQ and not (len(key) == 1 and key.isascii() and key.isalnum()):
        raise UsageError("sysrq wants a key, one letter or digit")
    return await _command(service, unit, cmd, ord(key) if cmd is abi.Cmd.SYSRQ else 0)


async def _command(service: Service, unit: Unit, cmd: abi.Cmd, arg: int) -> Reply:
    """Write a command, ring, and wait shortly for the agent; a fault may keep it from answering."""
    bridge = unit.bridge
    if bridge is None or unit.vnode.state not in LIVE:
        raise RefusedError(f"{unit.label} is {unit.vnode.state.word}; it takes no command")
    number = bridge.command(cmd, arg)
    _ring(service, unit)
    for _ in range(int(COMMAND_WAIT_S / log.LATE_S)):
        await asyncio.sleep(log.LATE_S)  # an asker does not delay the restart it may have asked for
        try:
            result = bridge.command_result(number)
        except AdeosError:
            result = None
        if result:
            raise RefusedError(f"{unit.label}: {os.strerror(result)}")
        if result == 0 or unit.vnode.state not in LIVE:
            return {"ok": True, "taken": True}
    return {"ok": True, "taken": False}


def _ring(service: Service, unit: Unit) -> None:
    """Ring the portal to a vnode; RefusedError when its agent is not there, or frozen."""
    if unit.watched is None:
        raise RefusedError(f"{unit.label} is being frozen; try again in a second")
    if not portal.ring(service.machine, unit):
        raise RefusedError(f"{unit.label}: its agent is not up, so nobody would hear")


async def console_input(service: Service, request: Reply, send: Send) -> Reply:
    """Bytes (base64) for the vnode's console; how many were taken."""
    unit = _unit(service, request)
    try:
        data = base64.b64decode(str(request.get("data", "")), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("data is no base64") from None
    if unit.bridge is None or unit.vnode.state not in LIVE:
        raise RefusedError(f"{unit.label} is {unit.vnode.state.word}; nobody reads its console")
    taken = unit.bridge.console_write(data)
    _ring(service, unit)
    return {"ok": True, "taken": taken}


async def save_registers(service: Service, request: Reply, send: Send) -> Reply:
    """Have every CPU save its registers in the debug mailbox, by NMI, and go on."""
    unit = _unit(service, request)
    if unit.bridge is None or unit.vnode.state not in LIVE:
        raise RefusedError(f"{unit.label} is {unit.vnode.state.word}; its CPUs do not run")
    await service.executor.save_registers(unit)
    return {"ok": True, "cpus": unit.answered or ()}


async def grant(service: Service, request: Reply, send: Send) -> Reply:
    """Let the vnode "to" look at another's memory, and with "control" stop and change it too."""
    unit, holder = _pair(service, request, "to")
    if unit.id not in holder.grants and len(holder.grants) >= abi.VN_MAX_GRANTS:
        raise RefusedError(f"{holder.label} has {len(holder.grants)} grants; revoke one first")
    holder.grants.add(unit.id)
    if request.get("control") is True:
        holder.controls.add(unit.id)
    else:
        _uncontrol(service, unit, holder)
    return await _granted(service, holder)


async def revoke(service: Service, request: Reply, send: Send) -> Reply:
    """Take a grant back; "taken": the holder's agent has confirmed that nothing is mapped."""
    unit, holder = _pair(service, request, "from")
    if unit.id not in holder.grants:
        raise RefusedError(f"{holder.label} was not granted {unit.label}")
    holder.grants.remove(unit.id)
    _uncontrol(service, unit, holder)
    return await _granted(service, holder)


def _uncontrol(service: Service, unit: Unit, holder: Unit) -> None:
    holder.controls.discard(unit.id)
    service.broker.drop(holder, {unit.id})


def _pair(service: Service, request: Reply, key: str) -> tuple[Unit, Unit]:
    """The vnode that is looked at, and the one that looks."""
    for which in (request.get("vnode"), request.get(key)):
        if str(which) in ("0", "root"):
            raise UsageError("the root sees every vnode and shows itself to none: name vnodes")
    unit, holder = _unit(service, request), service.unit(request.get(key))
    if unit is holder:
        raise UsageError(f"{unit.label} sees its own memory anyway: name two vnodes")
    return unit, holder


async def _granted(service: Service, holder: Unit) -> Reply:
    service.publish(holder)
    return _describe(holder) | {
        "ok": True,
        "grants": sorted(holder.grants),
        "controls": sorted(holder.controls),
        "taken": await grants.taken(holder),
    }


async def follow(service: Service, request: Reply, send: Send) -> None:
    """Send each change of state until the client goes; one that lags behind is dropped."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(256)
    lagging = asyncio.Event()

    def listen(record: dict[str, Any]) -> None:
        try:
            queue.put_nowait(record)
        except asyncio.QueueFull:
            lagging.set()

    service.listeners.add(listen)
    try:
        await send({"ok": True, "following": True})
        while not lagging.is_set():
            await send({"ok": True, **await queue.get()})
    finally:
        service.listeners.discard(listen)


async def reload(service: Service, request: Reply, send: Send) -> Reply:
    """Read the config file anew; what holds now, what holds later, and what does not."""
    found = await reloading.reload(service)
    return {
        "ok": True,
        "applied": found.applied,
        "later": found.later,
        "refused": found.refused,
    }


async def shutdown(service: Service, request: Reply, send: Send) -> Reply:
    """End the daemon; "vnodes": "stop" stops them first, "leave" lets them run on."""
    what = request.get("vnodes", "leave")
    if what not in ("stop", "leave"):
        raise UsageError('"vnodes" is "stop" or "leave"')
    if what == "stop":
        await service.stop_all()
    service.root.farewell()
    asyncio.get_running_loop().call_later(0.05, service.done.set)  # let the reply go out
    return {"ok": True}


VERBS = {
    "ping": ping,
    "status": status,
    "start": start,
    "stop": stop,
    "fence": fence,
    "restart": restart,
    "freeze": freeze,
    "images": images,
    "wait": wait,
    "dump": dump,
    "inject": inject,
    "command": command,
    "console-input": console_input,
    "registers": save_registers,
    "grant": grant,
    "revoke": revoke,
    "events": follow,
    "reload": reload,
    "shutdown": shutdown,
}


def _describe(unit: Unit) -> Reply:
    vnode = unit.vnode
    return {
        "id": unit.id,
        "name": unit.config.name,
        "state": vnode.state.word,
        "reason": vnode.reason,
        "incarnation": vnode.incarnation,
        "restarts": vnode.restarts,
        "restarts_left": restarts_left(vnode, time.monotonic_ns()),
        "incidents": vnode.incidents,
        "false_alarms": vnode.false_alarms,
        "last_incident": unit.last_incident,
    }


def _unit(service: Service, request: Reply) -> Unit:
    return service.unit(request.get("vnode"))


def _refuse(unit: Unit, wish: Wish) -> None:
    why = refusal(unit.vnode, wish)
    if why:
        raise RefusedError(f"{unit.label} {why}")


def _states(request: Reply) -> frozenset[State]:
    words = request.get("state", "running")
    known = {state.word: state for state in State}
    listed = words if isinstance(words, list) else [words]
    for word in listed:
        if not isinstance(word, str) or word not in known:
            raise UsageError(f"no state {word!r}; known: {', '.join(known)}")
    return frozenset(known[word] for word in listed)

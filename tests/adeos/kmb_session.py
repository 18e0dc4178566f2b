# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a root vnode, for test_kmb.py: a vnode's life through KmbMachine, told as JSON.

python3 kmb_session.py KERNEL INITRD CPU[,CPU...]
"""

import json
import os
import select
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adeos import abi, loader
from adeos.bridge import Bridge
from adeos.errors import AdeosError
from adeos.kmb import KmbMachine
from adeos.machine import Binding, Range
from adeos.pool import Pool

VNODE = 7
LIMIT = 90  # seconds; an emulated boot takes 2 to 12
PARAMETERS = Path("/sys/module/kmb/parameters")
KERNEL = 0xFFFFFFFF81000000  # an address of its kernel half


def wait(machine: KmbMachine, done: Callable[[], bool]) -> int:
    """Rings of the vnode until `done`; RuntimeError after LIMIT."""
    rings = 0
    end = time.monotonic() + LIMIT
    while not done():
        if time.monotonic() > end:
            raise RuntimeError("the vnode did not get there in time")
        select.select([machine], [], [], 0.2)
        rings += sum(event.rings for event in machine.events() if event.vnode == VNODE)
    return rings


def life(machine: KmbMachine, image: loader.Image, binding: Binding, incarnation: int) -> dict:
    """Boots the vnode, looks at it from all sides, and has it panic on its last CPU."""
    ncpus = len(binding.cpus)
    apicid = {cpu.cpu: cpu.apicid for cpu in machine.cpus()}
    placement = loader.Placement(
        VNODE,
        "session",
        binding.region,
        binding.slot,
        tuple(apicid[cpu] for cpu in binding.cpus),
        incarnation,
        binding.vector,
        binding.dest_apicid,
        flags=abi.VN_F_INJECT,
    )
    entry = loader.load(machine, image, placement)
    missed = miss(machine, entry) if incarnation == 2 else None
    (PARAMETERS / "skip_sipi").write_text(str(incarnation - 1))  # the second life: tried twice
    machine.start(VNODE, cr3=entry.cr3, entry=entry.entry, rsi=entry.rsi)
    bridge = Bridge.open(machine, binding.region, writable=True)
    console = bridge.console_reader()

    def state() -> int:
        side = bridge.vnode_side()
        return side.state if side else abi.State.NONE

    rings = wait(machine, lambda: state() == abi.State.RUNNING)
    side = bridge.vnode_side()
    assert side is not None
    counts = bridge.beat_counts(ncpus)
    before = counts()

    def all_beat() -> bool:
        moved = [now > then for now, then in zip(counts(), before, strict=True)]
        return all(ok for index, ok in enumerate(moved) if index % 4 < abi.VN_LAYERS)

    wait(machine, all_beat)
    ping = bridge.command(abi.Cmd.PING)
    machine.ipi(VNODE, 0, side.vector)
    wait(machine, lambda: bridge.command_result(ping) is not None)
    pong = bridge.command_result(ping)
    frames = []
    for cpu in range(ncpus):
        number = bridge.ask_registers(cpu)
        machine.nmi(VNODE, cpu)
        wait(machine, lambda cpu=cpu, number=number: bridge.debug(cpu).saved == number)
        frame = bridge.debug_frame(cpu)
        frames.append(frame.reg("rip") if frame else 0)
    text = b""

    def said() -> bool:
        nonlocal text
        text += console.read().data
        return b"typed-42" in text

    control = leases(machine, binding)
    bridge.console_write(b"echo typed-$((6*7))\n")
    wait(machine, said)
    bridge.command(abi.Cmd.INJECT, abi.Inject.PANIC | ncpus - 1 << 8)
    machine.ipi(VNODE, 0, side.vector)

    def crashed() -> bool:
        crash = bridge.crash()
        return crash is not None and crash.state == abi.VN_CRASH_DONE

    crash_rings = wait(machine, crashed)
    crash = bridge.crash()
    assert crash is not None
    saved = [bridge.crash_frame(cpu) for cpu in range(ncpus)]
    machine.park(VNODE)
    return {
        "release": side.release,
        "incarnation": side.incarnation,
        "ncpus": side.ncpus,
        "rings": rings,
        "ping": pong,
        "frames": frames,
        "reason": crash.reason.name,
        "cpu": crash.cpu,
        "message": crash.message,
        "crash_rings": crash_rings,
        "saved": [frame.flags if frame else 0 for frame in saved],
        "kmsg": "Kernel panic" in bridge.kmsg(),
        "control": control,
        "missed": missed,
    }


def miss(machine: KmbMachine, entry: loader.Entry) -> dict:
    """Starts whose SIPI gets lost: with a limit, and without one while others ask."""
    ways = {"cr3": entry.cr3, "entry": entry.entry, "rsi": entry.rsi}
    skip = PARAMETERS / "skip_sipi"
    skip.write_text("1")
    late = _said(lambda: machine.start(VNODE, **ways, wait_us=2000))
    again = _said(lambda: machine.start(VNODE, **ways, wait_us=2000))
    machine.park(VNODE)
    wrong = _said(lambda: machine.start(VNODE, **ways, wait_us=2_000_000))
    skip.write_text("9")
    said: list[tuple[str, str]] = []
    start = partial(machine.start, VNODE, **ways)
    thread = threading.Thread(target=lambda: said.append(_said(start)))
    thread.start()
    time.sleep(0.2)
    binding = machine.query(VNODE)
    busy = [
        _said(lambda: machine.park(VNODE)),
        _said(start),
        _said(lambda: machine.unbind(VNODE)),
        _said(lambda: machine.nmi(VNODE, 0)),
        _said(lambda: machine.clear(*binding.region)),
    ]
    waited = thread.is_alive()  # seconds are left: nobody had to wait for its end
    thread.join()
    machine.park(VNODE)
    return {"late": [late, again], "wrong": wrong, "busy": busy, "waited": waited, "said": said}


def leases(machine: KmbMachine, binding: Binding) -> dict:
    """A debugger's control of the running vnode: who may, and what is left when it ends."""
    spare = binding.region.base + abi.VN_OFF_BRIDGE + 0x60000  # of the bridge, used by nobody
    byte = machine.view(spare, 1)
    holder, rival, observer = KmbMachine(writable=True), KmbMachine(writable=True), KmbMachine()
    calls: list[Callable[[], object]] = [
        lambda: observer.control(VNODE, 1000),
        lambda: holder.control(VNODE + 1, 1000),
        lambda: holder.control(VNODE, abi.KMB_LEASE_MAX_MS + 1),
        lambda: rival.poke(VNODE, spare, b"x"),
        lambda: machine.poke(VNODE, spare, b"x"),
        lambda: rival.nmi(VNODE, 0),
        lambda: holder.control(VNODE, 1000),
        lambda: rival.control(VNODE, 1000),
        lambda: holder.poke(VNODE, spare, b"A"),
        lambda: holder.poke(VNODE, binding.region.base - 1, b"AB"),
        lambda: holder.poke(VNODE, binding.region.end - 1, b"AB"),
        lambda: holder.poke(VNODE, binding.slot.base, b"A"),
        lambda: holder.set_break(VNODE, 1 << 63, spare),
        lambda: holder.set_break(VNODE, 1 << 63, spare),
        lambda: holder.set_break(VNODE, 1 << 63, binding.slot.base),
        lambda: holder.clear_break(VNODE, spare + 1),
    ]
    said = [_said(call) for call in calls]
    broken, held = byte[0], machine.query(VNODE)
    holder.close()
    closed, free = byte[0], machine.query(VNODE)
    rival.control(VNODE, 50)
    rival.set_break(VNODE, 1 << 63, spare)
    time.sleep(1)
    expired, over = byte[0], machine.query(VNODE)
    said.append(_said(lambda: rival.poke(VNODE, spare, b"x")))
    said.append(_said(lambda: rival.renew(VNODE, 1000)))
    rival.close()
    observer.close()
    assert held and free and over
    return {
        "said": said,
        "bytes": [broken, closed, expired],
        "holders": [bool(held.holder), free.holder, over.holder],
    }


def refusals(machine: KmbMachine, binding: Binding) -> list[tuple[str, str]]:
    """What the device says to requests that it must refuse: error class and text of each."""
    region, slot = binding.region, binding.slot
    observer = KmbMachine()
    other = _elsewhere(machine, binding)[0]
    calls: list[Callable[[], object]] = [
        lambda: machine.nmi(VNODE, 0),
        lambda: machine.view(0x1000000, 4096),
        lambda: machine.view(region.base, 1 << 40),
        lambda: machine.bind(VNODE + 1, [0], *_elsewhere(machine, binding)),
        lambda: machine.bind(VNODE + 1, list(binding.cpus), *_elsewhere(machine, binding)),
        lambda: machine.bind(VNODE + 1, _free(machine), region, slot),
        lambda: machine.start(VNODE, cr3=0x1000, entry=region.base, rsi=region.base),
        lambda: machine.start(VNODE + 1, cr3=0, entry=0, rsi=0),
        lambda: machine.resume(VNODE, cr3=region.base, entry=KERNEL, cr4=0x20),
        lambda: machine.resume(VNODE, cr3=binding.slot.base, entry=KERNEL, cr4=0x20),
        lambda: machine.resume(VNODE, cr3=binding.slot.base + 0x1000, entry=region.base, cr4=0x20),
        lambda: machine.resume(VNODE, cr3=binding.slot.base + 0x1000, entry=KERNEL, cr4=0x40020),
        lambda: machine.resume(VNODE + 1, cr3=region.base, entry=KERNEL, cr4=0x20),
        lambda: machine.park(VNODE, 5000),
        lambda: machine.clear(0, 4096),
        lambda: machine.put_back(Range(0x1000000, 4096), region, _span(0, 0, 4096)),
        lambda: machine.put_back(region, Range(0x1000000, 4096), _span(0, 0, 4096)),
        lambda: machine.put_back(region, region, _span(0, 0, 4096)),
        lambda: machine.put_back(region, other, b""),
        lambda: machine.put_back(region, other, _span(0, 1, 4096)),
        lambda: machine.put_back(region, other, _span(-4096, 0, 8192)),
        lambda: machine.put_back(region, other, _span(0, region.size, 4096)),
        lambda: machine.unbind(VNODE + 1),
        lambda: KmbMachine(writable=True).claim(),
        observer.claim,
        lambda: observer.park(VNODE),
        lambda: observer.put_back(region, other, _span(0, 0, 4096)),
        lambda: observer.view(region.base, 4096, writable=True),
    ]
    said = [_said(call) for call in calls]
    observer.close()
    return said


def put_back(machine: KmbMachine, binding: Binding) -> dict[str, object]:
    """Pages of the parked vnode's region, damaged in two places, out of an image of them."""
    pages = 512
    image = _elsewhere(machine, binding)[0]
    region = machine.view(*binding.region, writable=True)[: (pages + 1) * 4096]
    copy = machine.view(*image, writable=True)
    before = os.urandom(len(region))
    region[:] = before
    copy[4096 : 4096 + len(before)] = before  # a page further on
    region[5 * 4096 + 7] ^= 1
    region[pages * 4096 - 1] ^= 1
    region[pages * 4096] ^= 1  # behind the last span
    spans = _span(0, 4096, 4096) + _span(2 * 4096, 3 * 4096, (pages - 2) * 4096)
    counts = [machine.put_back(binding.region, image, spans) for _ in range(2)]
    behind = pages * 4096
    same = bytes(region[:behind]) == before[:behind]
    return {"counts": counts, "same": same, "behind": region[behind] ^ before[behind]}


def _span(to: int, source: int, size: int) -> bytes:
    return struct.pack("<3Q", to % (1 << 64), source, size)


def _said(call: Callable[[], object]) -> tuple[str, str]:
    """Class and text of the error; "nothing" when there is none."""
    try:
        call()
    except AdeosError as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def _free(machine: KmbMachine) -> list[int]:
    """One CPU that is given to vnodes and bound to none."""
    return [cpu.cpu for cpu in machine.cpus() if cpu.vnode == 0][:1]


def _elsewhere(machine: KmbMachine, binding: Binding) -> tuple[Range, Range]:
    pool = Pool(machine.info().range, Range(machine.info().low_base, machine.info().low_size))
    pool.reserve(binding.region, binding.slot)
    return pool.region(abi.VN_REGION_MIN), pool.slot(1)


def main(kernel: str, initrd: str, cpus: str) -> None:
    image = loader.Image.stage(Path(kernel), Path(initrd), "quiet")
    image.verify()
    machine = KmbMachine(writable=True)
    machine.claim()
    info = machine.info()
    pool = Pool(info.range, Range(info.low_base, info.low_size))
    numbers = [int(cpu) for cpu in cpus.split(",")]
    binding = machine.bind(VNODE, numbers, pool.region(256 << 20), pool.slot(len(numbers)))
    retries = int((PARAMETERS / "start_retries").read_text())
    try:
        lives = [life(machine, image, binding, n) for n in (1, 2)]
        said = refusals(machine, binding)
        pages = put_back(machine, binding)
    finally:
        machine.park(VNODE)
        machine.unbind(VNODE)
    retries = int((PARAMETERS / "start_retries").read_text()) - retries
    left = machine.query(VNODE)
    print(
        json.dumps(
            {"lives": lives, "refusals": said, "left": left, "retries": retries, "pages": pages}
        )
    )
    machine.close()


main(*sys.argv[1:])

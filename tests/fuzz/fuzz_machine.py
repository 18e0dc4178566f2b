# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage-guided fuzzing of what vnodes, clients and files say to the root, with atheris.

    python tests/fuzz/fuzz_machine.py TARGET [-max_total_time=600] [atheris options]

TARGET is one of those in TARGETS.  The seeds are built in code.  Anything but an error of ours
is a finding, and so is what a target asserts; so is a run of more than ten seconds.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import struct
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(
    include=["adeos", "kexec_restart", "crashdump", "watchdog", "cli", "tui.keys", "debugger.qemu"]
):
    import cli.events
    import cli.history
    import cli.incidents
    import cli.show
    import debugger.qemu
    import tui.errors
    import tui.keys
    import watchdog.daemon
    from adeos import abi, bootparams, text, vmlinux
    from adeos.abi import Range
    from adeos.bridge import Bridge, RootBridge
    from cli.session import Session
    from crashdump import elf, facts, incident, notes
    from crashdump.stages import Stage, table
    from kexec_restart import slots, warm_image
    from watchdog import broker, config, control, eventlog, filing, qos, shelf, verbs
    from watchdog.states import Fault

import msgspec

from adeos.errors import AdeosError, BridgeError
from crashdump.errors import CrashdumpError
from tests.adeos import test_bridge, test_vmlinux
from tests.cli.conftest import FakeWorld
from tests.fuzz import harness
from tests.introspect import test_printk
from tests.kexec_restart import test_warm_image
from tests.watchdog.conftest import LastingMachine, Rig, tiny_bzimage, vnode_text
from watchdog.errors import WatchdogError

OURS = (AdeosError, CrashdumpError, WatchdogError, tui.errors.TuiError)
REGION = Range(0x30000000, 0x8000000)
AREAS = (
    (abi.VN_BR_VNODE, abi.VNODE_SIDE.size), (abi.VN_BR_CRASH, abi.CRASH.size),
    (abi.VN_BR_CRASH_REGS, abi.FRAME.size), (abi.VN_BR_SAMPLES, abi.FRAME.size),
    (abi.VN_BR_DEBUG, abi.DEBUG.size), (abi.VN_BR_DEBUG_REGS, abi.FRAME.size),
    (abi.VN_BR_CONTROL, abi.CONTROL.size), (abi.VN_BR_CONSOLE_OUT, abi.RING.size + 64),
    (abi.VN_BR_CONSOLE_IN, abi.RING.size), (abi.VN_BR_WARM, abi.WARM.size),
    (abi.VN_BR_ASK, abi.ASK.size), (abi.VN_BR_GRANTS, 16), (abi.VN_BR_ROOT, abi.ROOT_SIDE.size),
    (abi.VN_BR_KMSG, 512), (abi.VN_BR_BEATS, abi.BEAT.size),
)  # fmt: skip
"""The parts of a bridge that a run fills, one after the other."""
BRIDGE = test_bridge.blank_bridge(REGION)
BLANK = bytes(BRIDGE.view)


def scribbled(data: bytes) -> Bridge:
    BRIDGE.view[:] = BLANK
    at = 0
    for place, size in AREAS:
        piece = data[at : at + size]
        BRIDGE.view[place : place + len(piece)] = piece
        at += size
    return BRIDGE


def areas() -> bytes:
    """A bridge whose agent is up and has crashed."""
    world = FakeWorld()
    vnode = world.vnode(1, "alpha")
    vnode.boot()
    vnode.crash(abi.Reason.PANIC, message="Fatal exception")
    return b"".join(bytes(vnode.view[place : place + size]) for place, size in AREAS)


def fuzz_bridge(data: bytes) -> None:
    """Every reader on its own: what is accepted is within bounds and printable."""
    bridge = scribbled(data)
    readers = [*test_bridge.readers(bridge), bridge.warm, bridge.ask, bridge.asked, bridge.control]
    for read in readers:
        try:
            read()
        except BridgeError as error:
            assert str(error).isprintable()
    found = filing._facts(bridge, Fault("panic", 1, 0, True))
    assert all(value.isprintable() for value in found.values() if isinstance(value, str))
    reader = bridge.console_reader()
    for head in struct.unpack_from("<4I", data.ljust(16, b"\0")):
        abi.RING.put(bridge.view, abi.VN_BR_CONSOLE_OUT, "head", head)
        out = reader.read()
        assert len(out.data) <= abi.VN_CONSOLE_OUT_BYTES and out.lost >= 0
    text.printable(data)


ROOT = memoryview(bytearray(abi.VN_ROOT_SIZE))


def fuzz_root(data: bytes) -> None:
    """The daemon's word, two entries and their shadows; a next daemon takes the table over."""
    size = abi.STATUS.size
    places = [0, abi.VN_ROOT_TABLE + size, abi.VN_ROOT_TABLE + 2 * size]
    places += [abi.VN_ROOT_SHADOW + size, abi.VN_ROOT_SHADOW + 2 * size]
    sizes = [abi.ROOT_HEAD.size, *[size] * 4]
    at = 0
    for place, length in zip(places, sizes, strict=True):
        ROOT[place : place + length] = data[at : at + length].ljust(length, b"\0")
        at += length
    root = RootBridge(ROOT)
    head = abi.RootHead(0, abi.VN_ABI_VERSION, 1, 1, 1, 1, 1, 0, 1, 0)
    for read in (root.head, root.statuses, lambda: root.init(head, keep=True), root.statuses):
        try:
            read()
        except BridgeError as error:
            assert str(error).isprintable()


def root_seed() -> bytes:
    world = FakeWorld()
    world.daemon()
    world.vnode(1, "alpha")
    view, at = world.root.view, abi.VN_ROOT_TABLE + abi.STATUS.size
    entry = bytes(view[at : at + abi.STATUS.size])
    blank = bytes(abi.STATUS.size)
    return bytes(view[: abi.ROOT_HEAD.size]) + entry + blank + entry + blank


WORLD = FakeWorld()
WORLD.daemon()
for _number, _name in ((1, "alpha"), (2, "beta"), (3, "gamma")):
    WORLD.vnode(_number, _name)


class Shared:
    """The machine of another open file."""

    def __getattr__(self, name: str) -> Any:
        return getattr(WORLD.machine, name)

    def close(self) -> None:
        """Nothing of the machine's."""


def fuzz_ask(data: bytes) -> None:
    """A series of requests of a holder that was granted vnode 2, not 3: each gets an errno."""
    unit = SimpleNamespace(id=1, controls={2}, bridge=scribbled(b""), vnode=None)
    serving = broker.Broker(WORLD.machine, Shared, lambda work: work.close())
    before = bytes(WORLD.machine.raw(WORLD.machine.query(3).region.base, 0x1000))
    step = abi.ASK.size
    for at in range(0, min(len(data), 16 * step), step):
        piece = data[at : at + step].ljust(step, b"\0")
        BRIDGE.view[abi.VN_BR_ASK : abi.VN_BR_ASK + step] = piece
        try:
            request, poke = BRIDGE.ask()
        except BridgeError:
            continue
        answer = serving._do(unit, request, poke)
        assert answer.error == 0 or answer.error in errno.errorcode
        assert answer.error or request.vnode == 2
    serving.close()
    assert before == bytes(WORLD.machine.raw(WORLD.machine.query(3).region.base, 0x1000))


def ask_seed() -> bytes:
    base = WORLD.machine.query(2).region.base + 0x200000
    view, made = bytearray(abi.ASK.size), b""
    asked = ((abi.AskOp.CONTROL, 60_000, 0), (abi.AskOp.POKE, 4, base), (abi.AskOp.NMI, 0, 0),
             (abi.AskOp.BREAK, 1, base))  # fmt: skip
    for op, number, first in asked:
        for key, value in (("vnode", 2), ("number", number), ("client", 1), ("op", op)):
            abi.ASK.put(memoryview(view), 0, key, value)
        at = abi.ASK.members["address"].offset
        struct.pack_into("<QQ", view, at, first, first)
        made += bytes(view)
    return made


def warm() -> tuple[bytes, warm_image.Identity]:
    """A small image and whose it is."""
    region, slot = Range(0x40000000, 0x400000), test_warm_image.SLOT
    identity = test_warm_image.IDENTITY._replace(region=region)
    runs = [warm_image.Run(0x10, 2), warm_image.Run(0x300, 1), warm_image.Run(0x401, 0x1F)]
    view = memoryview(bytearray(warm_image.size_of(runs)))
    memory = (memoryview(bytearray(region.size)), memoryview(bytearray(slot.size)))
    warm_image.WarmImage.capture(view, identity, test_warm_image.RESUME, runs, *memory)
    return bytes(view), identity


WARM, IDENTITY = warm()
HEAD = warm_image._HEAD.size


def fuzz_warm(data: bytes) -> None:
    """A damaged image; then the same with a right digest, so that its page map is judged."""
    view = memoryview(bytearray(data.ljust(HEAD, b"\0")))
    for whole in (False, True):
        if whole:
            head = list(warm_image._HEAD.unpack_from(view))
            end = HEAD + head[30] * warm_image._RUN.size
            pages = sum(run[1] for run in warm_image._RUN.iter_unpack(
                view[HEAD : min(end, HEAD + (len(view) - HEAD) // 8 * 8)]))  # fmt: skip
            end += 4 * warm_image._groups(pages)
            head[31] = bytes(32)
            digest = hashlib.sha256(warm_image._HEAD.pack(*head))
            digest.update(view[HEAD:end])
            view[HEAD - 32 : HEAD] = digest.digest()
        try:
            image = warm_image.WarmImage.open(view, IDENTITY)
            for place in (*image.places(), *image.slot_places()):
                assert place.at + place.size <= len(view)
                part = IDENTITY.slot if place.slot else IDENTITY.region
                assert 0 <= place.offset <= part.size - place.size
            image.verify()
        except AdeosError as error:
            assert str(error).isprintable()


def fuzz_incident(data: bytes) -> None:
    """incident.json: what is decoded can be shown."""
    try:
        one = incident.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return
    table(one.stamps)
    qos.detection([one])
    for shown in (
        cli.show.facts(one, Path("/x")), cli.show.stages(one), cli.show.witnesses(one),
        *cli.incidents.cells(one),
    ):  # fmt: skip
        assert "\x1b" not in shown
    incident.encode(incident.changed(one, {"message": one.message}))


def incident_seed() -> bytes:
    dump = incident.Dump(incident.DumpState.HELD, "", incident.DumpMode.HOLD, "vmcore",
                         extents=(incident.Extent(1 << 20, 1 << 20),))  # fmt: skip
    seen = (incident.Witness(2, "two", 1, 5, 6),)
    stamps = {str(stage): 1000 * n for n, stage in enumerate(Stage)}
    return incident.encode(incident.Incident(
        1, 1, "one", 1, "panic", True, 1.5, cpu=1, pid=2, comm="sh", stamps=stamps,
        witnesses=seen, dump=dump, image_age=1.0, successor=2, closed=2.5,
    ))  # fmt: skip


def fuzz_evidence(data: bytes) -> None:
    """crash.json, and the notes that are made of it."""
    try:
        found = incident.decode_evidence(data)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return
    try:
        elf.pack_notes(notes.compose(b"OSRELEASE=1\n", found.cpus))
    except (struct.error, ValueError):
        pass  # numbers that no frame holds: the worker's dump is written without notes


def evidence_seed() -> bytes:
    cpus = (notes.CpuState(0, tuple(range(27)), True, cr3=4096), None)
    return incident.encode(incident.Evidence(1, "panic", "x", 0, cpus))


def fuzz_facts(data: bytes) -> None:
    """The vnode's memory as the dump worker sees it, with the agent's word on the note."""
    where = int.from_bytes(data[:4], "little")
    facts.find([facts.Segment(0x1000, memoryview(data[4:] or b"\0"))], where)


PLACE = Path(tempfile.mkdtemp(prefix="fuzz-"))


def fuzz_slots(data: bytes) -> None:
    """slots/1.json: refused, or any series of changes holds."""
    store = shelf.Shelf(PLACE)
    (PLACE / "1.json").write_bytes(data)
    try:
        found = store.load(1)
    except (OSError, ValueError):
        return
    assert found is not None
    for change in (
        lambda s: slots.started(s, slots.choose(s)), slots.failed, lambda s: slots.returned(s, 3),
        lambda s: slots.condemned(s, slots.free(s), "why"),
        lambda s: slots.named(s, slots.Spec("/k", "", ""), 3, 1.0),
    ):  # fmt: skip
        found = change(found)
        assert slots.choose(found) in slots.NAMES
    json.dumps(slots.describe(found))
    msgspec.json.encode(found)


CONFIG = """
[machine]
memory = ["0x38000000+0x40200000"]
low = "0x10000+0x50000"
cpus = [1, 2, 3]
[watch]
period_ms = 10
[dumps]
bytes = "20G"
[hooks]
on_incident = [["/bin/true", "x"]]
[[vnode]]
id = 2
name = "web"
kernel = "/k"
cpus = [2, 3]
memory = "256M@0x40000000"
grants = [{ vnode = 3, control = true }]
[vnode.watch]
irq = { limit_ms = 250 }
judge = "phi"
[vnode.restart]
on_crash = "restart"
"""


def fuzz_config(data: bytes) -> None:
    """vnodes.toml and tui.toml."""
    words = data.decode("utf-8", "replace")
    try:
        config.parse(words, Path("/nonexistent/vnodes.toml"), files=False)
    except WatchdogError as error:
        assert error.exit_code == 3
    (PLACE / "tui.toml").write_bytes(data)
    try:
        tui.keys.load(PLACE / "tui.toml")
    except tui.errors.TuiError as error:
        assert str(error)


def fuzz_events(data: bytes) -> None:
    """The event log, and all that is drawn from it."""
    records = list(eventlog.parse(data))
    session = Session()
    for record in records:
        cli.events.wanted(record, "1", 0.0)
        cli.events.moment(record)
    for record in records[:4]:
        cli.events.show(session, record)
    cli.history.states(records, 1e9)
    qos.mistakes(records)


def events_seed() -> bytes:
    rows = [
        {"seq": n, "time": 1e9 + n, "level": "info", "event": event, "vnode": 1, "name": "a",
         "was": was, "incarnation": 1, "reason": "x", "state": "running"}
        for n, (event, was) in enumerate([
            ("booting", "offline"), ("running", "booting"), ("suspect", "running"),
            ("running", "suspect"), ("adopted", "x"), ("crashed", "running"),
        ])
    ]  # fmt: skip
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def fuzz_bzimage(data: bytes) -> None:
    bootparams.parse_bzimage(data)


def fuzz_vmlinux(data: bytes) -> None:
    vmlinux.flatten(data)


def fuzz_mtree(data: bytes) -> None:
    """What QEMU's monitor prints."""
    words = data.decode("latin-1")
    debugger.qemu.parse_mtree(words, "ram")
    debugger.qemu.parse_registers(words)


MTREE = b""" Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): ram
  00000000000c0000-000000007fffffff (prio 0, ram): ram @00000000000c0000
CPU#0
RAX=0000000000000000 RBX=0000000000000001 CR3=0000000000001000
"""


class Requests:
    """A daemon on a fake machine; requests come in without the socket's cost."""

    KEYS = ("vnode", "to", "from", "force", "strategy", "dry_run", "slot", "bad", "state", "kind",
            "incarnation", "cpu", "command", "key", "data", "control", "kernel", "initrd",
            "cmdline")  # fmt: skip
    VALUES = (1, 2, "one", "two", 0, "root", -1, 1 << 70, True, None, "a", "b", "cold", "warm",
              "standby", "kmb", "spare", "manual", "running", ["running"], "panic", "hang", "ping",
              "sysrq", "AAAA", 1.5, [], {}, "\x1b[2J", "x" * 5000, ["x", 1], "\udcff", "/dev/null",
              "..", "inf")  # fmt: skip
    NOT = frozenset({"shutdown", "events", "dump", "wait"})
    """They end the daemon, never answer, or write 64 MiB."""

    def __init__(self) -> None:
        import os

        directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
        os.environ["VNODE_DEBUG_RUN"] = str(directory / "run")
        os.environ["VNODE_DEBUG_STATE"] = str(directory / "state")
        made: list[Any] = []
        table_of = verbs.table

        def keep(service: Any) -> Any:
            made.append(service)
            return table_of(service)

        watchdog.daemon.table = keep  # type: ignore[attr-defined]
        restart = 'on_crash = "restart"\nbackoff_s = 0'
        texts = vnode_text(1, "one", [1], restart) + vnode_text(2, "two", [2, 3], restart)
        self.rig = Rig(directory, LastingMachine(), texts).start()
        service = made[0]
        self.loop = self.rig._loop
        self.server = control.ControlServer(Path("/nonexistent/x"), table_of(service))
        self.known = sorted(set(self.server.verbs) - self.NOT)

    def one(self, data: bytes) -> None:
        """A line as it is, or a request put together."""
        chooser = atheris.FuzzedDataProvider(data)
        if chooser.ConsumeBool():
            line = data[1:]
            if any(word.encode() in line for word in self.NOT) or b"\\u" in line:
                return
        else:
            request = {"verb": chooser.PickValueInList(self.known)}
            for _ in range(chooser.ConsumeIntInRange(0, 4)):
                key = chooser.PickValueInList(list(self.KEYS))
                request[key] = chooser.PickValueInList(list(self.VALUES))
            line = json.dumps(request).encode()

        async def send(reply: Any) -> None:
            raise AssertionError("no verb here sends twice")

        assert self.loop is not None
        work = asyncio.run_coroutine_threadsafe(self.server._answer(line, send), self.loop)
        reply = work.result(60)
        json.dumps(reply)
        if not reply["ok"]:
            words = reply["error"]
            assert "Error: " not in words, f"{line!r}: {words}"


def fuzz_control(data: bytes) -> None:
    global REQUESTS
    if REQUESTS is None:
        REQUESTS = Requests()
    REQUESTS.one(data)


REQUESTS: Requests | None = None

TARGETS: dict[str, harness.Target] = {
    "ask": (fuzz_ask, lambda: [ask_seed()]),
    "bridge": (fuzz_bridge, lambda: [areas()]),
    "bzimage": (fuzz_bzimage, lambda: [tiny_bzimage()]),
    "config": (fuzz_config, lambda: [CONFIG.encode(), b'[keys]\nrestart = "f9"\n']),
    "control": (fuzz_control, lambda: [b'\1{"verb": "start", "vnode": 1}', bytes(range(40))]),
    "events": (fuzz_events, lambda: [events_seed()]),
    "evidence": (fuzz_evidence, lambda: [evidence_seed()]),
    "facts": (fuzz_facts, lambda: [b"\0\x10\0\0" + test_printk.LAYOUT]),
    "incident": (fuzz_incident, lambda: [incident_seed()]),
    "mtree": (fuzz_mtree, lambda: [MTREE]),
    "root": (fuzz_root, lambda: [root_seed()]),
    "slots": (fuzz_slots, lambda: [msgspec.json.encode(slots.Slots())]),
    "vmlinux": (fuzz_vmlinux, lambda: [test_vmlinux.WHOLE]),
    "warm": (fuzz_warm, lambda: [WARM[: HEAD + 200]]),
}


if __name__ == "__main__":
    harness.main(__doc__, TARGETS, OURS)

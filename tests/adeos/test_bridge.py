# SPDX-License-Identifier: GPL-2.0-or-later
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adeos import abi
from adeos.bridge import Bridge, RootBridge
from adeos.errors import BridgeError
from adeos.machine import Range


def blank_bridge(region=None):
    bridge = Bridge(memoryview(bytearray(abi.VN_BRIDGE_SIZE)), region)
    side = abi.ROOT_SIDE.unpack(bytes(abi.ROOT_SIDE.size))
    bridge.init(
        side._replace(
            abi=abi.VN_ABI_VERSION, size=abi.VN_BRIDGE_SIZE, vnode_id=2, ncpus=2, name="web"
        )
    )
    return bridge


def readers(bridge):
    console = bridge.console_reader()
    return [
        bridge.root_side,
        bridge.vnode_side,
        lambda: bridge.beats(abi.VN_MAX_CPUS),
        bridge.beat_counts(abi.VN_MAX_CPUS),
        bridge.crash,
        bridge.kmsg,
        console.read,
        lambda: bridge.command_result(1),
        *(
            lambda read=read, cpu=cpu: read(cpu)
            for read in (
                bridge.crash_frame,
                bridge.sample_frame,
                bridge.debug_frame,
                bridge.debug,
            )
            for cpu in range(abi.VN_MAX_CPUS)
        ),
        lambda: bridge.console_write(b"reboot\n"),
    ]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([1, 2, 20, 1000]))
def test_readers_of_a_scribbled_bridge_raise_bridge_errors_only(seed, step):
    """Random bytes at every `step`th place: sparse ones get past the first checks."""
    bridge = blank_bridge(Range(0x30000000, 0x8000000))
    abi.VNODE_SIDE.put(bridge.view, abi.VN_BR_VNODE, "abi", 1)
    places = range(seed % step, abi.VN_BRIDGE_SIZE, step)
    noisy = bytearray(bridge.view)
    noisy[seed % step :: step] = random.Random(seed).randbytes(len(places))
    bridge.view[:] = noisy
    for read in readers(bridge):
        try:
            read()
        except BridgeError as error:
            assert "\n" not in str(error) and str(error).isprintable()


@given(st.binary(min_size=abi.VNODE_SIDE.size, max_size=abi.VNODE_SIDE.size))
def test_an_accepted_agent_report_is_within_bounds(data):
    region = Range(0x30000000, 0x8000000)
    bridge = blank_bridge(region)
    bridge.view[abi.VN_BR_VNODE : abi.VN_BR_VNODE + len(data)] = data
    for name, value in (("abi", 1), ("state", 2), ("ncpus", data[0] % 20), ("vector", data[1])):
        abi.VNODE_SIDE.put(bridge.view, abi.VN_BR_VNODE, name, value)
    try:
        side = bridge.vnode_side()
    except BridgeError:
        return
    assert 0 < side.ncpus <= abi.VN_MAX_CPUS
    assert side.release.isprintable()
    assert not side.vmcoreinfo_pa or region.contains(
        Range(side.vmcoreinfo_pa, side.vmcoreinfo_size)
    )


def test_before_the_agent_there_is_no_report():
    bridge = blank_bridge()
    assert bridge.vnode_side() is None
    assert bridge.crash() is None
    assert bridge.kmsg() == ""
    assert bridge.crash_frame(0) is None
    assert bridge.root_side().name == "web"


def test_a_frame_held_odd_for_ever_is_an_error():
    bridge = blank_bridge()
    abi.FRAME.put(bridge.view, abi.VN_BR_SAMPLES, "seq", 3)
    with pytest.raises(BridgeError, match="written for ever"):
        bridge.sample_frame(0)


def test_a_cpu_out_of_range_is_an_error():
    bridge = blank_bridge()
    for call in (bridge.crash_frame, bridge.debug, bridge.ask_registers):
        for cpu in (-1, abi.VN_MAX_CPUS):
            with pytest.raises(BridgeError):
                call(cpu)
    with pytest.raises(BridgeError):
        bridge.beats(abi.VN_MAX_CPUS + 1)


def test_an_agent_is_followed_from_boot_to_crash(running):
    bridge, vnode = running
    assert bridge.root_side().incarnation == 7
    assert bridge.vnode_side().state is abi.State.AGENT
    counts = bridge.beat_counts(2)
    vnode.beat(3)
    assert counts() == (3, 3, 3, 0) * 2
    assert [beat.count[abi.Layer.USER] for beat in bridge.beats(2)] == [3, 3]
    assert bridge.vnode_side().state is abi.State.RUNNING
    vnode.hang(abi.Layer.SCHED)
    vnode.beat()
    assert counts() == (4, 3, 3, 0) * 2
    vnode.crash(abi.Reason.OOPS, 1, "bad \x1b[31mtext", b"line 1\n\x1b]0;x\x07line 2\n")
    crash = bridge.crash()
    assert (crash.state, crash.reason, crash.cpu) == (abi.VN_CRASH_DONE, abi.Reason.OOPS, 1)
    assert crash.message == r"bad \x1b[31mtext"
    assert bridge.kmsg() == "line 1\n\\x1b]0;x\\x07line 2\n"
    flags = [bridge.crash_frame(cpu).flags & abi.VN_FRAME_CRASHED for cpu in range(2)]
    assert flags == [0, abi.VN_FRAME_CRASHED]
    assert bridge.crash_frame(1).reg("rip") == 0xFFFFFFFF81000001


def test_commands_and_debug_requests_reach_the_agent(running, adeos_machine):
    bridge, vnode = running
    number = bridge.command(abi.Cmd.PING)
    assert bridge.command_result(number) is None
    adeos_machine.ipi(2, 0, bridge.vnode_side().vector)
    assert bridge.command_result(number) == 0
    number = bridge.command(abi.Cmd.INJECT, abi.Inject.PANIC)
    adeos_machine.ipi(2, 0, bridge.vnode_side().vector)
    assert bridge.command_result(number) == 1  # EPERM: VN_F_INJECT is not set
    assert vnode.injected == []
    request = bridge.ask_registers(1)
    adeos_machine.nmi(2, 1)
    mailbox = bridge.debug(1)
    assert bridge.debug_progress(1) == (mailbox.state, mailbox.done, mailbox.stops)
    assert (mailbox.state, mailbox.saved, mailbox.nmi) == (abi.VN_DBG_RUNNING, request, 0)
    assert bridge.debug_frame(1).reg("rsp") == 0xFFFFC90000004000


@given(st.lists(st.binary(max_size=0x7000), max_size=12), st.data())
def test_console_output_is_complete_or_counted_as_lost(chunks, data):
    """A model: what is read or lost adds up, and what is read is the end of what was written."""
    bridge = blank_bridge()
    start = data.draw(st.sampled_from([0, 0xFFFFFF00, 0x7FFFFFF0]))
    abi.RING.put(bridge.view, abi.VN_BR_CONSOLE_OUT, "head", start)
    reader = bridge.console_reader()
    reader.read()
    ring = abi.VN_BR_CONSOLE_OUT + abi.RING.size
    size = abi.VN_CONSOLE_OUT_BYTES
    head, unread = start, b""
    for chunk in chunks:
        for n, byte in enumerate(chunk):
            bridge.view[ring + (head + n) % size] = byte
        head = head + len(chunk) & 0xFFFFFFFF
        abi.RING.put(bridge.view, abi.VN_BR_CONSOLE_OUT, "head", head)
        unread += chunk
        if data.draw(st.booleans()):
            out = reader.read()
            assert out.data == unread[-size:]
            assert len(out.data) + out.lost == len(unread)
            unread = b""


def test_console_input_wraps_and_stops_when_full(running):
    bridge, vnode = running
    size = abi.VN_CONSOLE_IN_BYTES
    for part in (b"a" * 3000, b"b" * 3000, b"ls\n"):
        assert bridge.console_write(part) == len(part)
        assert vnode.keys() == part
    assert bridge.console_write(b"c" * (size + 10)) == size
    assert bridge.console_write(b"d") == 0
    assert vnode.keys() == b"c" * size
    abi.RING.put(bridge.view, abi.VN_BR_CONSOLE_IN, "tail", 1 << 31)
    with pytest.raises(BridgeError, match="fill"):
        bridge.console_write(b"e")


def blank_status(**changes):
    return abi.STATUS.unpack(bytes(abi.STATUS.size))._replace(**changes)


def blank_root():
    root = RootBridge(memoryview(bytearray(abi.VN_ROOT_SIZE)))
    assert root.head() is None
    head = abi.ROOT_HEAD.unpack(bytes(abi.ROOT_HEAD.size))
    return root, root.init(head._replace(pid=1, tsc_khz=1000))


def test_the_daemon_publishes_and_observers_read():
    root, epoch = blank_root()
    assert epoch == 1
    assert root.init(root.head()) == 2
    root.publish(blank_status(id=3, state=abi.StatusState.RUNNING, name="web", reason=""))
    root.beat(5, 77, 1)
    assert (root.head().beat, root.head().beat_tsc, root.head().late_ticks) == (5, 77, 1)
    assert [(s.id, s.name, s.state.name) for s in root.statuses()] == [(3, "web", "RUNNING")]
    root.retract(3)
    assert root.statuses() == []
    with pytest.raises(BridgeError):
        root.status(abi.VN_MAX_VNODES)


def test_a_takeover_that_keeps_the_table_never_empties_it():
    root, _ = blank_root()
    root.publish(blank_status(id=3, name="web"))
    table = bytes(root.view[abi.VN_ROOT_TABLE :])

    class Watched(bytearray):
        def __setitem__(self, at, data):
            super().__setitem__(at, data)
            assert bytes(self[abi.VN_ROOT_TABLE :]) == table
            assert abi.ROOT_HEAD.unpack(self, 0).magic == abi.VN_ROOT_MAGIC

    root.view = Watched(root.view)
    assert root.init(root.head()._replace(pid=9), keep=True) == 2
    assert (root.head().pid, root.head().epoch) == (9, 2)
    fresh = RootBridge(memoryview(bytearray(abi.VN_ROOT_SIZE)))
    assert fresh.init(root.head(), keep=True) == 1 and fresh.statuses() == []


class Killed(BaseException):
    """The writer is gone from here on."""


class Mortal(bytearray):
    """Memory whose writer is killed within its n-th write, after some bytes of it."""

    left, part = 1 << 30, 0

    def __setitem__(self, at, data):
        if self.left == 0:
            raise Killed
        self.left -= 1
        if self.left == 0 and isinstance(at, slice):
            data = bytes(data)[: self.part]
            at = slice(at.start, at.start + len(data))
        super().__setitem__(at, data)


@pytest.mark.parametrize("part", [0, 1, 30, 100])
def test_a_writer_killed_at_any_write_leaves_the_old_word_or_the_new(part, monkeypatch):
    put = type(abi.STATUS).put

    def through(self, view, at, name, value):
        """As the real one, by a write that can be killed."""
        whole = bytearray(view[at : at + self.size])
        put(self, whole, 0, name, value)
        view[at : at + self.size] = whole

    monkeypatch.setattr(type(abi.STATUS), "put", through)
    outcomes = set()
    for writes in range(1, 12):
        root, _ = blank_root()
        root.publish(blank_status(id=3, name="old", incarnation=1, reason="o" * 20))
        memory = root.view = Mortal(root.view)
        memory.left, memory.part = writes, part
        try:
            root.publish(blank_status(id=3, name="new", incarnation=2, reason="n" * 20))
        except Killed:
            pass
        memory.left = 1 << 30
        root.init(root.head(), keep=True)
        status = root.status(3)
        assert (status.name, status.incarnation, status.reason) in (
            ("old", 1, "o" * 20),
            ("new", 2, "n" * 20),
        )
        outcomes.add(status.name)
        root.publish(blank_status(id=3, name="next"))
        assert root.status(3).name == "next"
    assert outcomes == {"old", "new"}


def test_a_status_is_never_seen_half_written():
    root, _ = blank_root()
    stop = threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            root.publish(blank_status(id=1, incarnation=n, restarts=n, incidents=n))

    writer = threading.Thread(target=write)
    root.publish(blank_status(id=1))
    writer.start()
    try:
        seen = 0
        for _ in range(2000):
            try:
                status = root.status(1)
            except BridgeError:
                continue  # the writer was switched out while it wrote
            seen += 1
            assert status.incarnation == status.restarts == status.incidents
    finally:
        stop.set()
        writer.join()
    assert seen > 100


@given(st.binary(min_size=0, max_size=abi.STATUS.size), st.integers(1, 31))
def test_a_scribbled_root_bridge_raises_bridge_errors_only(data, vnode):
    root, _ = blank_root()
    at = abi.VN_ROOT_TABLE + vnode * abi.STATUS.size
    root.view[at : at + len(data)] = data
    root.view[: min(len(data), 64)] = data[:64]
    for read in (lambda: root.status(vnode), root.head, root.statuses):
        try:
            read()
        except BridgeError as error:
            assert str(error).isprintable()


def grant_of(vnode, region=0x20000000):
    status = abi.STATUS.unpack(bytes(abi.STATUS.size))
    status = status._replace(id=vnode, name=f"v{vnode}", region_base=region, region_size=1 << 26)
    return abi.Grant(0, 1, 5), status


def test_a_table_of_grants_is_written_when_it_changes():
    bridge = blank_bridge()

    def table():
        return abi.GRANTS.unpack(bridge.view, abi.VN_BR_GRANTS)

    assert not bridge.grant([])
    assert bridge.grant([grant_of(3), grant_of(5)])
    first = table()
    assert (first.n, first.seq % 2, first.status[1].name, first.status[2].id) == (2, 0, "v5", 0)
    assert not bridge.grant([grant_of(3), grant_of(5)])
    assert table() == first
    assert bridge.grant([grant_of(3), grant_of(5, region=0x30000000)])
    assert table().seq == first.seq + 2
    assert bridge.grant([])
    assert (table().n, table().status[0].id) == (0, 0)
    with pytest.raises(BridgeError, match="9 grants"):
        bridge.grant([grant_of(vnode) for vnode in range(1, 10)])


def test_a_table_that_a_killed_daemon_left_half_written_is_written_anew():
    bridge = blank_bridge()
    bridge.grant([grant_of(3)])
    odd = abi.GRANTS.get(bridge.view, abi.VN_BR_GRANTS, "seq") + 1
    abi.GRANTS.put(bridge.view, abi.VN_BR_GRANTS, "seq", odd)
    assert bridge.grant([grant_of(3)])
    assert abi.GRANTS.get(bridge.view, abi.VN_BR_GRANTS, "seq") == odd + 1


def test_what_the_agent_goes_by(running):
    bridge, _ = running
    assert bridge.grants_taken()
    bridge.grant([grant_of(3)])
    assert not bridge.grants_taken()


@pytest.mark.parametrize(
    ("member", "data"), [("way", b"\xee"), ("reason", b"\x1b" * 31)], ids=["number", "text"]
)
def test_a_scribbled_entry_does_not_keep_the_next_daemon_from_taking_over(member, data):
    """Found by tests/fuzz/fuzz_machine.py: a torn entry beside one that no daemon writes."""
    root, _ = blank_root()
    for number in (3, 4):
        root.publish(blank_status(id=number, name="x"))
    table, shadow = (at + 3 * abi.STATUS.size for at in (abi.VN_ROOT_TABLE, abi.VN_ROOT_SHADOW))
    abi.STATUS.put(root.view, table, "seq", 7)
    at = shadow + abi.STATUS.members[member].offset
    root.view[at : at + len(data)] = data
    assert root.init(root.head(), keep=True) == 2
    assert root.status(4).name == "x"
    with pytest.raises(BridgeError):
        root.status(3)

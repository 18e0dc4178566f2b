# SPDX-License-Identifier: GPL-2.0-or-later
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debugger import packet
from debugger.handlers import TABLE
from debugger.packet import frame, unescape
from debugger.registers import LAYOUT
from debugger.session import Phase, Session
from debugger.target import Change
from tests.debugger.conftest import BASE, Client, PlainTarget

GDB_13 = b"qSupported:multiprocess+;swbreak+;xmlRegisters=i386"
GDB_18 = GDB_13 + b";error-message+"


def test_acknowledgements_until_they_are_switched_off(client: Client) -> None:
    feed = client.session.feed
    assert feed(b"$qC#b4") == b"+" + frame(b"QC1")
    assert feed(b"-") == frame(b"QC1")
    assert feed(b"$qC#00") == b"-"
    assert feed(frame(b"QStartNoAckMode")) == b"+" + frame(b"OK")
    assert feed(b"$qC#b4") == frame(b"QC1")
    assert feed(b"-$qC#00") == b""


def test_what_is_supported_depends_on_the_client(client: Client) -> None:
    assert b"error-message+" not in client.ask(GDB_13)
    assert client.ask(b"qC") == b"QCp2.1"
    assert b"error-message+" in client.ask(GDB_18)
    assert b"PacketSize=20000;" in client.ask(b"qSupported")
    assert client.ask(b"qC") == b"QC1"


def test_memory_in_hex_and_binary(client: Client, target: PlainTarget) -> None:
    assert client.ask(b"m%x,4" % BASE) == b"00010203"
    target.memory[:4] = b"$#}*"
    reply = client.ask(b"x%x,6" % BASE)
    assert reply[:1] == b"b"
    assert unescape(reply[1:]) == b"$#}*\x04\x05"
    assert client.ask(b"m%x,0" % BASE) == b""


def test_reads_are_cut_at_the_end_of_memory_and_at_the_packet_size(
    client: Client, target: PlainTarget
) -> None:
    assert client.ask(b"m%x,10" % (BASE + len(target.memory) - 2)) == b"feff"
    target.memory *= 64
    assert len(client.ask(b"m%x,ffffffffffffffff" % BASE)) == packet.PACKET_SIZE
    assert len(client.ask(b"x%x,ffffffffffffffff" % BASE)) <= packet.PACKET_SIZE


@given(
    st.one_of(st.integers(BASE - 64, BASE + 0x2040), st.integers(0, (1 << 64) - 1)),
    st.one_of(st.integers(0, 300), st.integers(0, 0xFFFFF)),
    st.booleans(),
)
def test_reads_are_the_same_without_acknowledgements(at: int, size: int, physical: bool) -> None:
    request = frame(b"m%x,%x" % (at, size))
    slow, fast = Session(PlainTarget()), Session(PlainTarget())
    fast.feed(frame(b"QStartNoAckMode"))
    for session in (slow, fast):
        session.feed(frame(b"Qqemu.PhyMemMode:%d" % physical))
    assert slow.feed(request) == b"+" + fast.feed(request)
    assert fast.feed(request[:5]) == b""  # the rest belongs to it, whatever it looks like
    assert fast.feed(request[5:] + request) == 2 * fast.feed(request)


def test_errors_as_number_or_as_text(client: Client) -> None:
    assert client.ask(b"m0,4") == b"E0e"
    client.ask(GDB_18)
    assert client.ask(b"m0,4") == b"E.cannot access 4 bytes at 0x0: not mapped"


@pytest.mark.parametrize(
    "malformed",
    [
        b"m",
        b"m,",
        b"m10",
        b"m1_0,4",
        b"m-1,4",
        b"m+1,4",
        b"m 1,4",
        b"m1,4,5",
        b"m" + b"f" * 17 + b",1",
        b"xg,1",
        b"p",
        b"pfff",
        b"p-1",
        b"Hx1",
        b"Hg",
        b"T",
        b"Tzz",
        b"T7",
        b"Tp3.1",
        b"vCont;q",
        b"vCont;x:1",
        b"qRcmd,zz",
        b"qRcmd,f",
        b"qSearch:memory:0;10;",
        b"Qqemu.PhyMemMode:2",
        b"vAttach;7",
    ],
)
def test_malformed_packets_are_refused(client: Client, malformed: bytes) -> None:
    assert client.ask(malformed)[:1] == b"E"


@given(st.binary(max_size=60), st.sampled_from([name.decode() for name in TABLE]))
def test_no_packet_breaks_a_session(args: bytes, name: str) -> None:
    client = Client(Session(PlainTarget()))
    client.ask(GDB_18)
    replies = client.raw(packet.frame(packet.escape(name.encode() + args)))
    assert b"E.internal error of the server" not in replies
    assert all(len(reply) <= packet.PACKET_SIZE for reply in replies)


def test_unknown_packets_get_the_empty_reply(client: Client) -> None:
    unknown_ones = (
        b"",
        b"vMustReplyEmpty",
        b"vFile:setfs:0",
        b"QPassSignals:1",
        b"\xff",
        b"qTStatus",
    )
    for unknown in unknown_ones:
        assert client.ask(unknown) == b""


def test_registers(client: Client) -> None:
    g = client.ask(b"g")
    assert g.startswith(bytes.fromhex("8877665544332211").hex().encode())
    assert len(g) == sum(register.bits // 4 for register in LAYOUT)
    assert client.ask(b"p10") == (BASE + 0x10).to_bytes(8, "little").hex().encode()
    assert client.ask(b"p1") == b"x" * 16  # rbx is not known
    names = [register.name for register in LAYOUT]
    assert client.ask(b"p%x" % names.index("eflags")) == b"46020000"


def test_an_unknown_pc_is_zero_for_gdb_13(client: Client, target: PlainTarget) -> None:
    target.values[1] = {}
    assert client.ask(b"p10") == b"0" * 16
    assert set(client.ask(b"g")) == set(b"x0")


def test_selecting_threads(client: Client) -> None:
    client.ask(GDB_13)
    assert client.ask(b"Hgp2.2") == b"OK"
    assert client.ask(b"p10") == (BASE + 0x20).to_bytes(8, "little").hex().encode()
    assert client.ask(b"Hg0") == b"OK"
    assert client.ask(b"qC") == b"QCp2.2"
    assert client.ask(b"Hc-1") == b"OK"
    assert client.ask(b"Tp2.1") == b"OK"
    assert client.ask(b"qfThreadInfo") == b"mp2.1,p2.2"
    assert client.ask(b"qsThreadInfo") == b"l"
    assert bytes.fromhex(client.ask(b"qThreadExtraInfo,p2.2").decode()) == b"web CPU 1 <running>"


def read_document(client: Client, name: bytes, step: int) -> bytes:
    data, more = b"", True
    while more:
        reply = client.ask(b"qXfer:%b:%x,%x" % (name, len(data), step))
        data += unescape(reply[1:])
        more = reply[:1] == b"m"
    return data


@pytest.mark.parametrize("step", [7, 100, 0x20000])
def test_documents_come_in_pieces(client: Client, step: int) -> None:
    threads = ET.fromstring(read_document(client, b"threads:read:", step))
    assert [(t.get("id"), t.get("core"), t.text) for t in threads] == [
        ("1", "0", "CPU 0 <running>"),
        ("2", "1", "CPU 1 <running>"),
    ]
    regions = ET.fromstring(read_document(client, b"memory-map:read:", step))
    assert [int(r.get("start", ""), 0) for r in regions] == [0, BASE]


def test_the_target_description_numbers_the_registers(client: Client) -> None:
    tree = ET.fromstring(read_document(client, b"features:read:target.xml", 4096))
    found = [(reg.get("name"), int(reg.get("bitsize", ""))) for reg in tree.iter("reg")]
    assert found == [(register.name, register.bits) for register in LAYOUT]
    assert client.ask(b"qXfer:features:read:other.xml:0,100") == b"E00"
    assert client.ask(b"qXfer:auxv:read::0,100") == b"E00"


def test_nothing_is_written_while_watching(client: Client, target: PlainTarget) -> None:
    before = bytes(target.memory)
    for write in (b"M%x,1:00" % BASE, b"X%x,1:a" % BASE, b"P0=00", b"G00", b"Z0,0,1", b"z0,0,1"):
        assert client.ask(write) == b"E.web is watched, not stopped: nothing is written"
    assert target.memory == before


def test_continue_waits_for_the_interrupt(client: Client, target: PlainTarget) -> None:
    assert client.ask(b"vCont?") == b"vCont;c;C;s;S;t"
    assert client.raw(frame(b"vCont;c")) == []
    assert client.session.phase is Phase.RESUMED
    assert client.session.poll() == b""
    assert client.raw(b"\x03") == [b"T02thread:1;core:0;"]
    assert target.refreshed == 1
    assert client.raw(b"\x03") == []  # stopped already


def test_a_step_ends_at_once_and_says_why(client: Client) -> None:
    client.ask(GDB_13)
    assert client.ask(b"vCont;s:p2.2;c") == b"T02thread:p2.2;core:1;"
    assert "cannot be stepped" in client.console


def test_a_refused_breakpoint_keeps_continue_from_waiting(client: Client) -> None:
    client.ask(b"Z0,%x,1" % BASE)
    assert client.ask(b"vCont;c") == b"T02thread:1;core:0;"
    assert "no breakpoint was set" in client.console
    assert client.raw(frame(b"vCont;c")) == []


def test_a_dead_vnode_does_not_run(dead_client: Client) -> None:
    assert dead_client.ask(b"vCont;c") == b"T02thread:1;core:0;"
    assert "web is dead" in dead_client.console


def test_a_crash_stops_a_client_that_waits(client: Client, target: PlainTarget) -> None:
    client.raw(frame(b"vCont;c"))
    target.next_change = Change("panic: no \x1b[2J init", gone=False)
    target.focus = 2
    assert client.payloads(client.session.poll()) == [b"T05thread:2;core:1;"]
    assert client.console == "web: panic: no \\x1b[2J init\n"


def test_a_restart_ends_the_process(client: Client, target: PlainTarget) -> None:
    client.ask(GDB_13)
    client.raw(frame(b"vCont;c"))
    target.next_change = Change("restarted", gone=True)
    assert client.payloads(client.session.poll()) == [b"X09;process:2"]


def test_continue_after_a_restart_ends_the_process(
    dead_client: Client,
) -> None:
    dead_client.session.target.next_change = Change("restarted", gone=True)  # type: ignore[attr-defined]
    assert dead_client.ask(b"vCont;c") == b"X09"
    assert dead_client.console == "web: restarted\n"


def test_physical_addresses(client: Client) -> None:
    assert client.ask(b"qqemu.PhyMemMode") == b"0"
    assert client.ask(b"Qqemu.PhyMemMode:1") == b"OK"
    assert client.ask(b"qqemu.PhyMemMode") == b"1"
    assert client.ask(b"m10,2") == b"1011"
    assert client.ask(b"m%x,2" % BASE) == b"E0e"


@given(st.integers(0, 8000), st.binary(min_size=1, max_size=8))
def test_search_finds_what_find_finds(start: int, wanted: bytes) -> None:
    target = PlainTarget()
    client = Client(Session(target))
    size = len(target.memory) - start
    where = bytes(target.memory[start:]).find(wanted)
    expected = b"1,%x" % (BASE + start + where) if where >= 0 else b"0"
    query = b"qSearch:memory:%x;%x;%b" % (BASE + start, size, packet.escape(wanted))
    assert client.ask(query) == expected


def test_search_across_chunks(client: Client, target: PlainTarget) -> None:
    target.memory = bytearray(3 << 20)
    at = (1 << 20) - 2
    target.memory[at : at + 4] = b"\x01\x02\x03\x04"
    query = b"qSearch:memory:%x;%x;\x01\x02\x03\x04"
    assert client.ask(query % (BASE, 3 << 20)) == b"1,%x" % (BASE + at)
    assert client.ask(query % (BASE, 4 << 20)) == b"1,%x" % (BASE + at)
    assert client.ask(query % (BASE + at + 1, 4 << 20)) == b"E0e"


def test_monitor_commands(client: Client, target: PlainTarget) -> None:
    assert "info version" in client.words("help")
    assert client.words("info version")  # what Linux's lx- scripts probe for
    assert client.words("info vnode") == "vnode  2 (web)\n"
    assert "CPU 1" in client.words("info cpus")
    assert "no such command" in client.words("reboot")
    client.words("refresh")
    assert target.refreshed == 1


def test_monitor_info_ps_and_log(client: Client) -> None:
    assert client.words("info") == client.words("info vnode") + client.words("info cpus")
    assert client.words("ps").splitlines() == [
        "    PID    TGID    PPID CPU S  TASK               COMMAND",
        "      1       1       0   0 S  0x0000000000001000 in\\x1bit",
        "      7       7       2   1 R* 0x0000000000002000 [kworker]",
        "only these",
    ]
    assert client.words("log 2").splitlines() == [
        "[  198.000000] line 198",
        "[  199.000000] line 199",
    ]
    assert len(client.words("log").splitlines()) == 50
    assert "N is the number" in client.words("log -1")
    assert client.words("log 1 2") == "error: usage: log [N]\n"
    assert client.words("ps x").startswith("error: no such command")


@pytest.mark.parametrize("leave", [b"D;2", b"D", b"vKill;2"])
def test_leaving(client: Client, leave: bytes) -> None:
    assert client.ask(leave) == b"OK"
    assert client.session.phase is Phase.CLOSED


def test_kill_has_no_reply(client: Client) -> None:
    assert client.raw(frame(b"k")) == []
    assert client.session.phase is Phase.CLOSED


def test_a_thread_that_is_gone_at_a_stop(client: Client, target: PlainTarget) -> None:
    client.ask(b"vCont;s:2")
    gone = target.thread
    target.thread = lambda tid: None if tid == 2 else gone(tid)  # type: ignore[method-assign]
    assert client.ask(b"vCont;s").startswith(b"T02thread:1;")

# SPDX-License-Identifier: GPL-2.0-or-later
"""What each packet of the GDB remote protocol means: a table and its functions.

A handler takes the session and what follows the packet's name, and returns the
payload of the reply, or None when a stop reply will follow later.  Unknown
packets get the empty reply, as the protocol wants it.  Everything a client
sends is checked by a pattern first: Python's int() alone takes "1_0" and "+1".
Source: "Debugging with GDB", appendices E.2 to E.8; QEMU's gdbstub for PhyMemMode.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from debugger import features, monitor, registers
from debugger.packet import PACKET_SIZE, escape, unescape
from debugger.session import EINVAL, SIGINT, SIGTRAP, Failure, Hex, Phase, Reply, Session
from debugger.target import Liveness

_SEARCH_CHUNK = 1 << 20
_NAME = re.compile(rb"[qQv][A-Za-z.]*\??")
_WORDS = (b"q", b"Q", b"v")
_ADDRESS_SIZE = re.compile(rb"([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})")
_XFER = re.compile(rb":([a-z-]+):read:([^:]*):([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})")
_SEARCH = re.compile(rb":memory:([0-9a-fA-F]{1,16});([0-9a-fA-F]{1,16});(.+)", re.DOTALL)
_NUMBER = re.compile(rb"[0-9a-fA-F]{1,8}")

Handle = Callable[[Session, bytes], Reply]


class Handler(NamedTuple):
    """A row of the table.  `needs_control`: refused while the target is only watched."""

    handle: Handle
    needs_control: bool
    description: str


TABLE: dict[bytes, Handler] = {}
"""Packet name -> handler; a name is one letter, or a word after q, Q or v."""


def _packet(name: str, description: str) -> Callable[[Handle], Handle]:
    def register(handle: Handle) -> Handle:
        TABLE[name.encode()] = Handler(handle, False, description)
        return handle

    return register


def dispatch(session: Session, payload: bytes) -> Reply:
    """Handle one packet; Failure and TargetError become error replies of the session."""
    name = payload[:1]
    if name in _WORDS:
        name = _NAME.match(payload)[0]  # type: ignore[index]  # the first letter matches
    row = TABLE.get(name)
    if row is None:
        return b""
    if row.needs_control:
        session.breakpoint_refused |= name == b"Z"
        return _refuse(session)
    return row.handle(session, payload[len(name) :])


def _refuse(session: Session) -> Reply:
    target = session.target
    what = "watched, not stopped" if target.liveness is Liveness.RUNNING else "dead"
    raise Failure(1, f"{target.identity.name} is {what}: nothing is written", always=True)


for _name, _description in (
    ("G", "write all registers"),
    ("P", "write a register"),
    ("M", "write memory, hex"),
    ("X", "write memory, binary"),
    ("Z", "insert a breakpoint or watchpoint"),
    ("z", "remove a breakpoint or watchpoint"),
):
    TABLE[_name.encode()] = Handler(lambda _session, _args: b"", True, _description)


def _sizes(match: re.Match[bytes] | None, *groups: int) -> list[int]:
    if match is None:
        raise Failure(EINVAL, "malformed packet")
    return [int(match[group], 16) for group in groups]


# Memory


@_packet("m", "read memory, hex")
def _read_hex(session: Session, args: bytes) -> Reply:
    address, size = _sizes(_ADDRESS_SIZE.fullmatch(args), 1, 2)
    return Hex(_read(session, address, min(size, PACKET_SIZE // 2)))


@_packet("x", "read memory, binary")
def _read_binary(session: Session, args: bytes) -> Reply:
    address, size = _sizes(_ADDRESS_SIZE.fullmatch(args), 1, 2)
    # Half a packet: every byte may need an escape.
    return b"b" + escape(_read(session, address, min(size, PACKET_SIZE // 2)))


def _read(session: Session, address: int, size: int) -> bytes:
    if not size:
        return b""
    if session.physical:
        return session.target.read_physical(address, size)
    return session.target.read(session.tid, address, size)


@_packet("qSearch", "find bytes in memory")
def _search(session: Session, args: bytes) -> Reply:
    match = _SEARCH.fullmatch(args)
    address, left = _sizes(match, 1, 2)
    assert match is not None
    wanted = unescape(match[3])
    overlap = b""
    while left > 0:
        data = overlap + _read(session, address, min(left, _SEARCH_CHUNK))
        read = len(data) - len(overlap)
        at = data.find(wanted)
        if at >= 0:
            return b"1,%x" % (address - len(overlap) + at)
        overlap = data[len(data) - len(wanted) + 1 :] if len(wanted) > 1 else b""
        address, left = address + read, left - read
    return b"0"


@_packet("qqemu.PhyMemMode", "tell whether addresses are physical")
def _physical_mode(session: Session, _args: bytes) -> Reply:
    return b"%d" % session.physical


@_packet("Qqemu.PhyMemMode", "addresses are physical from now on, or virtual")
def _set_physical_mode(session: Session, args: bytes) -> Reply:
    if args not in (b":0", b":1"):
        raise Failure(EINVAL, "PhyMemMode is 0 or 1")
    session.physical = args == b":1"
    return b"OK"


@_packet("qqemu.Supported", "QEMU's own features")
def _qemu_supported(_session: Session, _args: bytes) -> Reply:
    return b"PhyMemMode"


# Registers and threads


@_packet("g", "read all registers")
def _read_registers(session: Session, _args: bytes) -> Reply:
    return registers.encode(session.target.registers(session.tid))


@_packet("p", "read a register")
def _read_register(session: Session, args: bytes) -> Reply:
    if not _NUMBER.fullmatch(args) or int(args, 16) >= len(registers.LAYOUT):
        raise Failure(EINVAL, "no such register")
    return registers.encode_one(int(args, 16), session.target.registers(session.tid))


@_packet("H", "select a thread")
def _select(session: Session, args: bytes) -> Reply:
    if args[:1] not in (b"g", b"c"):
        raise Failure(EINVAL, "malformed packet")
    thread = session.thread(args[1:])
    if args[:1] == b"g":
        session.tid = thread.tid
    return b"OK"


@_packet("T", "is a thread alive?")
def _alive(session: Session, args: bytes) -> Reply:
    session.thread(args)
    return b"OK"


@_packet("qC", "the selected thread")
def _current(session: Session, _args: bytes) -> Reply:
    return b"QC" + session.ident(session.tid)


@_packet("qfThreadInfo", "the threads")
def _first_threads(session: Session, _args: bytes) -> Reply:
    return b"m" + b",".join(session.ident(thread.tid) for thread in session.target.threads())


@_packet("qsThreadInfo", "more threads")
def _more_threads(_session: Session, _args: bytes) -> Reply:
    return b"l"


@_packet("qThreadExtraInfo", "words for a thread")
def _thread_info(session: Session, args: bytes) -> Reply:
    thread = session.thread(args.removeprefix(b","))
    return Hex(f"{thread.name} {thread.info}".encode())


# What both sides can do


@_packet("qSupported", "what both sides can do")
def _supported(session: Session, args: bytes) -> Reply:
    theirs = set(args.removeprefix(b":").split(b";"))
    session.multiprocess = b"multiprocess+" in theirs
    session.error_texts = b"error-message+" in theirs
    ours = [
        b"PacketSize=%x" % PACKET_SIZE,
        b"QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;qXfer:memory-map:read+",
        b"vContSupported+;binary-upload+",
    ]
    if session.multiprocess:
        ours.append(b"multiprocess+")
    if session.error_texts:
        ours.append(b"error-message+")
    return b";".join(ours)


@_packet("QStartNoAckMode", "no acknowledgements from now on")
def _no_acks(session: Session, _args: bytes) -> Reply:
    session.acks = False
    return b"OK"


def _threads_document(session: Session) -> bytes:
    return features.threads_xml(
        (session.ident(thread.tid).decode(), thread.cpu, thread.name, thread.info)
        for thread in session.target.threads()
    )


_DOCUMENTS: dict[tuple[bytes, bytes], Callable[[Session], bytes]] = {
    (b"features", b"target.xml"): lambda _session: features.target_xml(),
    (b"threads", b""): _threads_document,
    (b"memory-map", b""): lambda s: features.memory_map_xml(s.target.regions()),
}


@_packet("qXfer", "read a document")
def _transfer(session: Session, args: bytes) -> Reply:
    match = _XFER.fullmatch(args)
    if match is None:
        return b""
    document = _DOCUMENTS.get((match[1], match[2]))
    if document is None:
        raise Failure(0, "no such document")
    offset, size = _sizes(match, 3, 4)
    data = document(session)
    piece = data[offset : offset + min(size, PACKET_SIZE // 2)]
    return (b"m" if offset + len(piece) < len(data) else b"l") + escape(piece)


@_packet("qAttached", "was it there before?")
def _attached(_session: Session, _args: bytes) -> Reply:
    return b"1"  # so gdb detaches when it quits, and does not kill


@_packet("qSymbol", "offer of symbols")
def _symbols(_session: Session, _args: bytes) -> Reply:
    return b"OK"


@_packet("vMustReplyEmpty", "how is the unknown answered?")
def _unknown(_session: Session, _args: bytes) -> Reply:
    return b""


@_packet("qRcmd", "a command in words")
def _command(session: Session, args: bytes) -> Reply:
    try:
        words = bytes.fromhex(args.removeprefix(b",").decode("ascii")).decode().split()
    except ValueError:
        raise Failure(EINVAL, "malformed command") from None
    output = monitor.run(session, words)
    return Hex(output.encode()) if output else b"OK"


# Running, stopping, leaving


@_packet("?", "why is it stopped?")
def _why(session: Session, _args: bytes) -> Reply:
    return session.stop_reply(SIGTRAP)


@_packet("!", "extended mode")
def _extended(_session: Session, _args: bytes) -> Reply:
    return b"OK"


@_packet("vCont?", "which ways to resume?")
def _resume_ways(_session: Session, _args: bytes) -> Reply:
    return b"vCont;c;C;s;S"


@_packet("vCont", "resume")
def _resume(session: Session, args: bytes) -> Reply:
    actions = [action.partition(b":") for action in args.split(b";") if action]
    if not all(action[:1] in (b"c", b"C", b"s", b"S") for action, _, _ in actions):
        raise Failure(EINVAL, "no such way to resume")
    steps = [ident for action, _, ident in actions if action[:1] in (b"s", b"S")]
    if steps and steps[0]:
        session.focus = session.thread(steps[0]).tid
    return _run_on(session, stepping=bool(steps))


def _run_on(session: Session, *, stepping: bool) -> Reply:
    """Watched CPUs run anyway: to continue is to wait, and to step cannot be had."""
    name = session.target.identity.name
    change = session.target.change()
    if change is not None and change.gone:
        return session.end(change)
    if session.target.liveness is Liveness.DEAD:
        why = f"{name} is dead: its CPUs do not run"
    elif stepping:
        why = f"{name} is watched, not stopped: it cannot be stepped"
    elif session.breakpoint_refused:  # gdb may not have told: symbols of an added file
        why = f"{name} is watched, not stopped: no breakpoint was set"
    else:
        session.phase = Phase.RESUMED
        return None
    session.breakpoint_refused = False
    session.say(why)
    return session.stop(SIGINT)


@_packet("c", "continue (old)")
def _continue(session: Session, _args: bytes) -> Reply:
    return _run_on(session, stepping=False)


@_packet("s", "step (old)")
def _step(session: Session, _args: bytes) -> Reply:
    return _run_on(session, stepping=True)


@_packet("vAttach", "attach to a vnode")
def _attach(session: Session, args: bytes) -> Reply:
    if args != b";%x" % session.target.identity.number:
        raise Failure(EINVAL, "no such vnode here")
    return session.stop(SIGTRAP)


@_packet("D", "detach")
def _detach(session: Session, _args: bytes) -> Reply:
    session.phase = Phase.CLOSED
    return b"OK"


@_packet("vKill", "end the session; the vnode is left alone")
def _kill(session: Session, _args: bytes) -> Reply:
    session.phase = Phase.CLOSED
    return b"OK"


@_packet("k", "end the session (old)")
def _kill_old(session: Session, _args: bytes) -> Reply:
    session.phase = Phase.CLOSED
    return None

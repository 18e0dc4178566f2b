# SPDX-License-Identifier: GPL-2.0-or-later
"""What each packet of the GDB remote protocol means: a table and its functions.

A handler takes the session and what follows the packet's name, and returns the
payload of the reply, or None when a stop reply will follow later.  Unknown
packets get the empty reply, as the protocol wants it.  Everything a client
sends is checked by a pattern first: Python's int() alone takes "1_0" and "+1".
Source: "Debugging with GDB", appendices E.2 to E.8; QEMU's gdbstub for PhyMemMode.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from debugger import features, monitor, nonstop, registers, resume
from debugger.errors import DebuggerError, TargetError
from debugger.packet import PACKET_SIZE, escape, unescape
from debugger.pilot import Pilot
from debugger.resume import Way
from debugger.session import EINVAL, SIGTRAP, Failure, Hex, Phase, Reply, Session
from debugger.target import Liveness

_SEARCH_CHUNK = 1 << 20
_NAME = re.compile(rb"[qQv][A-Za-z.]*\??")
_WORDS = (b"q", b"Q", b"v")
_ADDRESS_SIZE = re.compile(rb"([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})")
_XFER = re.compile(rb":([a-z-]+):read:([^:]*):([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})")
_SEARCH = re.compile(rb":memory:([0-9a-fA-F]{1,16});([0-9a-fA-F]{1,16});(.+)", re.DOTALL)
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2})*")
_BREAK = re.compile(rb"([0-4]),([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,4})(?:;.*)?", re.DOTALL)
_WAYS = re.compile(rb"[cst]|[CS][0-9a-fA-F]{2}")
_NUMBER = re.compile(rb"[0-9a-fA-F]{1,8}")

Handle = Callable[[Session, bytes], Reply]


class Handler(NamedTuple):
    """A row of the table."""

    handle: Handle
    description: str


TABLE: dict[bytes, Handler] = {}
"""Packet name -> handler; a name is one letter, or a word after q, Q or v."""


def _packet(name: str, description: str) -> Callable[[Handle], Handle]:
    def register(handle: Handle) -> Handle:
        TABLE[name.encode()] = Handler(handle, description)
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
    return row.handle(session, payload[len(name) :])


def _pilot(session: Session) -> Pilot:
    """What writes to the selected target; Failure while it is only watched."""
    target = session.target
    pilot = target.pilot
    if pilot is not None and pilot.held:
        return pilot
    name = target.identity.name
    if target.liveness is Liveness.DEAD:
        raise Failure(1, f"{name} is dead: nothing is written", always=True)
    hint = "" if pilot is None else "; `monitor stop`, or Ctrl-C after `continue`, stops it"
    raise Failure(1, f"{name} is watched, not stopped: nothing is written{hint}", always=True)


@contextmanager
def _told() -> Iterator[None]:
    """What a packet that changes something could not do is said to gdb 13 too."""
    try:
        yield
    except TargetError as error:
        raise Failure(1, str(error), always=True) from None


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


@_packet("M", "write memory, hex")
def _write_hex(session: Session, args: bytes) -> Reply:
    pilot = _pilot(session)
    where, _, digits = args.partition(b":")
    address, size = _sizes(_ADDRESS_SIZE.fullmatch(where), 1, 2)
    if not _HEX.fullmatch(digits) or len(digits) != 2 * size:
        raise Failure(EINVAL, "malformed packet")
    return _write(session, pilot, address, bytes.fromhex(digits.decode()))


@_packet("X", "write memory, binary")
def _write_binary(session: Session, args: bytes) -> Reply:
    pilot = _pilot(session)
    where, _, data = args.partition(b":")
    address, size = _sizes(_ADDRESS_SIZE.fullmatch(where), 1, 2)
    if len(data := unescape(data)) != size:
        raise Failure(EINVAL, "malformed packet")
    return _write(session, pilot, address, data)


def _write(session: Session, pilot: Pilot, address: int, data: bytes) -> Reply:
    if session.physical:
        raise Failure(EINVAL, "physical memory is not written: switch PhyMemMode off", always=True)
    with _told():
        pilot.write(session.tid, address, data)
    return b"OK"


@_packet("Z", "insert a breakpoint or watchpoint")
def _insert(session: Session, args: bytes) -> Reply:
    try:
        pilot = _pilot(session)
    except Failure:
        session.breakpoint_refused = True
        raise
    kind, address, size = _sizes(_BREAK.fullmatch(args), 1, 2, 3)
    with _told():
        pilot.insert(session.tid, kind, address, size)
    return b"OK"


@_packet("z", "remove a breakpoint or watchpoint")
def _remove(session: Session, args: bytes) -> Reply:
    pilot = _pilot(session)
    kind, address, size = _sizes(_BREAK.fullmatch(args), 1, 2, 3)
    pilot.remove(kind, address, size)
    return b"OK"


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


@_packet("G", "write all registers")
def _write_registers(session: Session, args: bytes) -> Reply:
    pilot = _pilot(session)
    return _set_registers(session, pilot, registers.decode(args))


@_packet("P", "write a register")
def _write_register(session: Session, args: bytes) -> Reply:
    pilot = _pilot(session)
    number, _, digits = args.partition(b"=")
    if not _NUMBER.fullmatch(number) or int(number, 16) >= len(registers.LAYOUT):
        raise Failure(EINVAL, "no such register")
    return _set_registers(session, pilot, registers.decode_one(int(number, 16), digits))


def _set_registers(session: Session, pilot: Pilot, values: registers.Values | None) -> Reply:
    if values is None:
        raise Failure(EINVAL, "malformed packet")
    now = session.target.registers(session.tid)
    changed = {name: value for name, value in values.items() if now.get(name, 0) != value}
    if changed:
        with _told():
            pilot.set_registers(session.tid, changed)
    session.target.forget_registers(session.tid)
    return b"OK"


@_packet("H", "select a thread")
def _select(session: Session, args: bytes) -> Reply:
    if args[:1] not in (b"g", b"c"):
        raise Failure(EINVAL, "malformed packet")
    if args[:1] == b"g":
        pid, thread = session.find(args[1:])
        session.pid, session.tid = pid, thread.tid
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
    return b"m" + b",".join(ident for ident, _ in session.idents())


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
    session.stop_words = b"swbreak+" in theirs
    ours = [
        b"PacketSize=%x" % PACKET_SIZE,
        b"QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;qXfer:memory-map:read+",
        b"vContSupported+;binary-upload+;swbreak+;hwbreak+;QNonStop+",
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
        (ident.decode(), thread.cpu, thread.name, thread.info) for ident, thread in session.idents()
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
    if session.nonstop:
        return nonstop.list_stopped(session)
    return session.stop_reply(SIGTRAP) if session.targets else b"W00"


@_packet("QNonStop", "shall one CPU's stop leave the others running?")
def _non_stop(session: Session, args: bytes) -> Reply:
    if args not in (b":0", b":1"):
        raise Failure(EINVAL, "QNonStop is 0 or 1")
    session.nonstop = args == b":1"
    session.resumed = set(session.targets) if session.nonstop else set()
    return b"OK"


@_packet("vStopped", "the next stop that was not told yet")
def _next_stop(session: Session, _args: bytes) -> Reply:
    return session.stops.fetched()


@_packet("vCtrlC", "stop everything")
def _stop_all(session: Session, _args: bytes) -> Reply:
    for pid, target in session.targets.items():
        nonstop.stop(session, pid, target, -1)
    return b"OK"


@_packet("!", "extended mode")
def _extended(_session: Session, _args: bytes) -> Reply:
    return b"OK"


@_packet("vCont?", "which ways to resume?")
def _resume_ways(_session: Session, _args: bytes) -> Reply:
    return b"vCont;c;C;s;S;t"


@_packet("vCont", "resume")
def _resume(session: Session, args: bytes) -> Reply:
    actions = []
    for action in args.split(b";"):
        how, _, ident = action.partition(b":")
        if action and not _WAYS.fullmatch(how):
            raise Failure(EINVAL, "no such way to resume")
        if action:
            pid, tid = session.numbers(ident) if ident else (-1, -1)
            actions.append(resume.Action(resume.WAYS[how[:1].lower()], pid, tid))
    return resume.resume(session, actions)


@_packet("c", "continue (old)")
def _continue(session: Session, _args: bytes) -> Reply:
    return resume.resume(session, [resume.Action(Way.CONTINUE, session.pid, -1)])


@_packet("s", "step (old)")
def _step(session: Session, _args: bytes) -> Reply:
    return resume.resume(session, [resume.Action(Way.STEP, session.pid, session.tid)])


@_packet("vAttach", "attach to a vnode")
def _attach(session: Session, args: bytes) -> Reply:
    number = int(args[1:], 16) if _NUMBER.fullmatch(args[1:]) else -1
    if number in session.targets:
        session.pid = number
    elif number in session.catalog:
        try:
            session.adopt(session.catalog[number]())
        except DebuggerError as error:
            raise Failure(1, str(error), always=True) from None
    else:
        raise Failure(EINVAL, "no such vnode here", always=True)
    if session.nonstop:
        nonstop.attached(session, number)
        return b"OK"
    return session.stop(SIGTRAP)


@_packet("D", "detach")
def _detach(session: Session, args: bytes) -> Reply:
    return _leave(session, args)


@_packet("vKill", "end the debugging; the vnode is left alone")
def _kill(session: Session, args: bytes) -> Reply:
    return _leave(session, args)


def _leave(session: Session, args: bytes) -> Reply:
    """One target, or all; the session ends with the last unless more can be attached to."""
    pid = int(args[1:], 16) if _NUMBER.fullmatch(args[1:]) else session.pid
    session.let_go(pid)
    if session.targets:
        session.pid = next(iter(session.targets))
        session.tid = session.focus
    elif not session.catalog:
        session.phase = Phase.CLOSED
    return b"OK"


@_packet("k", "end the session (old)")
def _kill_old(session: Session, _args: bytes) -> Reply:
    session.close()
    return None

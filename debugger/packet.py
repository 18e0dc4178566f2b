# SPDX-License-Identifier: GPL-2.0-or-later
"""Framing of the GDB remote serial protocol, without I/O.

A packet on the wire is `$payload#cc`, cc the sum of the payload's bytes modulo
256 in hex; around packets stand acks `+`, refusals `-` and the interrupt 0x03.
In binary payloads `}` escapes the next byte (xor 0x20).  Only replies of a stub
may hold runs (`X*n`), so Parser leaves `*` alone.
Source: "Debugging with GDB", appendix E.1.

Limits: a packet longer than the parser's limit is dropped and reported once as
DAMAGED; the memory held never exceeds the limit plus the last bytes fed.
"""

import re
from binascii import hexlify
from enum import Enum
from typing import NamedTuple
from zlib import adler32

PACKET_SIZE = 0x20000
"""Largest payload sent or taken, bytes: 64 KiB of memory in hex."""

_DOLLAR = ord("$")
_CHUNK = 256
_HEX_CHUNK = 640
_ESCAPED = re.compile(rb"}(.)", re.DOTALL)
_HEX2 = re.compile(rb"[0-9a-fA-F]{2}")
_HEX_BYTE = tuple(b"%02x" % i for i in range(256))


class Kind(Enum):
    """What the parser found in the stream."""

    PACKET = "packet"
    """A whole packet with a right checksum; the payload is still escaped."""
    ACK = "ack"
    """The peer got the last reply."""
    NAK = "nak"
    """The peer wants the last reply again."""
    INTERRUPT = "interrupt"
    """Ctrl-C: 0x03 outside a packet."""
    DAMAGED = "damaged"
    """A packet with a wrong checksum or beyond the limit; its bytes are gone."""


class Event(NamedTuple):
    """One thing found in the stream; `payload` only with Kind.PACKET."""

    kind: Kind
    payload: bytes = b""


WHOLE_READ = re.compile(rb"\$m([0-9a-f]{1,16}),([0-9a-f]{1,5})#[0-9a-f]{2}").fullmatch
"""Matches bytes that are one `m` packet and nothing else; its checksum is not looked at."""

_SINGLE = {ord("+"): Event(Kind.ACK), ord("-"): Event(Kind.NAK), 3: Event(Kind.INTERRUPT)}
_NOISE = bytes(set(range(256)) - set(_SINGLE))
_DAMAGED = Event(Kind.DAMAGED)


def checksum(data: bytes, chunk: int = _CHUNK) -> int:
    """Sum of the bytes modulo 256.

    The low half of adler32 is 1 + the sum of the bytes modulo 65521, so over
    chunks that cannot reach that modulus (256 bytes; 640 when all are hex
    digits) it is exact, and six times faster than sum() on 128 KiB.
    """
    size = len(data)
    if size <= chunk:
        return adler32(data) - 1 & 0xFF
    view = memoryview(data)
    sums = map(adler32, [view[at : at + chunk] for at in range(0, size, chunk)])
    return sum(sums) - -(-size // chunk) & 0xFF


def frame(payload: bytes) -> bytes:
    """A packet around a payload that is already escaped."""
    return b"".join((b"$", payload, b"#", _HEX_BYTE[checksum(payload)]))


def frame_hex(data: bytes) -> bytes:
    """A packet whose payload is `data` in hex: the reply to `m`."""
    digits = hexlify(data)
    return b"".join((b"$", digits, b"#", _HEX_BYTE[checksum(digits, _HEX_CHUNK)]))


def escape(data: bytes) -> bytes:
    """Binary data made fit for a payload of either direction."""
    if b"}" in data:
        data = data.replace(b"}", b"}]")
    return data.replace(b"#", b"}\x03").replace(b"$", b"}\x04").replace(b"*", b"}\n")


def unescape(data: bytes) -> bytes:
    """Undo escape(); a lone `}` at the end stays."""
    if b"}" not in data:
        return data
    return _ESCAPED.sub(lambda match: bytes((match[1][0] ^ 0x20,)), data)


class Parser:
    """Turns a byte stream, split anyhow, into events.

    A `$` inside a packet starts a new one: the sender gave the old one up.
    """

    def __init__(self, limit: int = PACKET_SIZE + 64) -> None:
        self.limit = limit
        self._held: list[bytes] = []  # pieces of a packet begun
        self._ended = False  # its '#' has come, the checksum has not
        self._skipping = False  # inside a packet beyond the limit
        self.pending = 0
        """Bytes held back for the rest of a packet."""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; return what became complete, in order."""
        if self._held:
            if not self._ended and b"#" not in data:  # a slow drip costs linear time
                self._held.append(data)
                return self._hold(self._held, self.pending + len(data))
            data = b"".join([*self._held, data])
            self._held, self.pending = [], 0
        events: list[Event] = []
        at = 0
        while at < len(data):
            if self._skipping:
                at = self._skip(data)
            elif data[at] != _DOLLAR:
                at = self._between(data, at, events)
            else:
                end = data.find(b"#", at)
                self._ended = end >= 0
                if end < 0 or end + 3 > len(data):
                    return events + self._hold([data[at:]], len(data) - at)
                events.append(self._packet(data[at:end], data[end + 1 : end + 3]))
                at = end + 3
        return events

    def _hold(self, pieces: list[bytes], size: int) -> list[Event]:
        """Keep an unfinished packet, or give it up when it is too long."""
        if size <= self.limit:
            self._held, self.pending = pieces, size
            return []
        self._held, self.pending, self._skipping = [], 0, True
        return [_DAMAGED]

    def _skip(self, buffer: bytes) -> int:
        """Pass over the rest of a packet that was too long."""
        ends = [at for at in (buffer.find(b"$"), buffer.find(b"#")) if at >= 0]
        self._skipping = not ends
        return min(ends, default=len(buffer))

    @staticmethod
    def _between(buffer: bytes, at: int, events: list[Event]) -> int:
        """Take all up to the next packet; noise is ignored."""
        end = buffer.find(b"$", at)
        end = len(buffer) if end < 0 else end
        events.extend(_SINGLE[byte] for byte in buffer[at:end].translate(None, _NOISE))
        return end

    def _packet(self, text: bytes, digits: bytes) -> Event:
        payload = text[text.rfind(b"$") + 1 :]
        if len(payload) > self.limit or not _HEX2.fullmatch(digits):
            return _DAMAGED
        if int(digits, 16) != checksum(payload):
            return _DAMAGED
        return Event(Kind.PACKET, payload)

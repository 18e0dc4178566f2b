# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes apart a line on which a console and an RSP stub speak at once, without I/O.

Packets (`$payload#cc` with a right checksum) are for gdb, and so is `+` or `-`
while gdb waits for one; all else is console text.  A `$` of the console is held
back only until it turns out to begin no packet: at the next byte mostly, and
after HOLD_SECONDS of silence in any case.

Limits: notifications (`%...`) of non-stop mode are console text; so is a packet
that was damaged on the way, which gdb asks for again by itself.
"""

from debugger.packet import PACKET_SIZE, checksum

HOLD_SECONDS = 0.5
LIMIT = PACKET_SIZE + 64
_DOLLAR = ord("$")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_BEGINS = frozenset(range(0x21, 0x7F))
"""What a packet can begin with: no reply of a stub starts with a blank or a control character."""
_NO_ACKS = b"$QStartNoAckMode#"


class Splitter:
    """The state of one line; `attached` says that a gdb is there to take packets."""

    def __init__(self) -> None:
        self.attached = False
        self._held = b""
        self._since = 0.0
        self._acks = True
        self._wants_no_acks = False
        self._expected = 0

    def attach(self) -> None:
        """A gdb has come: it starts with acknowledgements on."""
        self.attached, self._acks = True, True
        self._wants_no_acks, self._expected = False, 0

    def detach(self) -> bytes:
        """The gdb has gone; the console text that was held back."""
        self.attached = False
        return self._release()

    def sent(self, data: bytes) -> None:
        """Note what gdb sends: for each packet an acknowledgement is due."""
        if self._acks:
            self._expected += data.count(b"#")
            self._wants_no_acks |= _NO_ACKS in data

    def feed(self, data: bytes, now: float) -> tuple[bytes, bytes]:
        """(console text, bytes for gdb) out of the next bytes of the line."""
        if not self.attached:
            return self._release() + data, b""
        data, self._held = self._held + data, b""
        self._since = now
        console, packets = bytearray(), bytearray()
        at = 0
        while at < len(data):
            if data[at] != _DOLLAR:
                end = data.find(b"$", at)
                end = len(data) if end < 0 else end
                self._text(data[at:end], console, packets)
                at = end
                continue
            end, is_packet = _candidate(data, at)
            if end < 0:
                self._held = data[at:]
                break
            if is_packet:
                self._packet(data[at:end])
            (packets if is_packet else console).extend(data[at:end])
            at = end
        return bytes(console), bytes(packets)

    def expire(self, now: float) -> bytes:
        """The console text that has been held back for too long."""
        return self._release() if self._held and now - self._since >= HOLD_SECONDS else b""

    @property
    def holding(self) -> bool:
        return bool(self._held)

    def _release(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _text(self, text: bytes, console: bytearray, packets: bytearray) -> None:
        """Console text with the acknowledgements that gdb waits for in it."""
        if not self._expected:
            console.extend(text)
            return
        for index, byte in enumerate(text):
            if byte not in b"+-":
                console.append(byte)
                continue
            packets.append(byte)
            self._expected -= 1
            if not self._expected:
                console.extend(text[index + 1 :])
                return

    def _packet(self, packet: bytes) -> None:
        self._expected = 0  # a reply comes after the acknowledgement
        if self._wants_no_acks:
            self._acks, self._wants_no_acks = packet[1:-3] != b"OK", False


def _candidate(data: bytes, at: int) -> tuple[int, bool]:
    """(end of what the `$` at `at` begins, whether that is a packet); (-1, False): not yet known.

    A `$` within a packet is always escaped, so another one ends the candidate.
    """
    if at + 1 < len(data) and data[at + 1] not in _BEGINS:
        return at + 1, False
    last = data.find(b"#", at)
    following = data.find(b"$", at + 1, last if last >= 0 else len(data))
    if following >= 0:
        return following, False
    digits = data[last + 1 : last + 3] if last >= 0 else b""
    if not _HEX.issuperset(digits):
        return last + 1, False
    if len(digits) < 2:
        return (len(data), False) if len(data) - at > LIMIT else (-1, False)
    return last + 3, last - at <= LIMIT and int(digits, 16) == checksum(data[at + 1 : last])

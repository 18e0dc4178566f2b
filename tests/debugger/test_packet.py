# SPDX-License-Identifier: GPL-2.0-or-later
from hypothesis import given
from hypothesis import strategies as st

from debugger.packet import (
    Event,
    Kind,
    Parser,
    checksum,
    escape,
    frame,
    frame_hex,
    unescape,
)

LIMIT = 64
ESCAPED = st.binary(max_size=LIMIT // 2).map(escape)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces that end at `places`."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.binary(max_size=3000))
def test_checksum_is_the_byte_sum(data: bytes) -> None:
    assert checksum(data) == sum(data) & 0xFF


def test_checksum_of_the_largest_bytes_in_whole_chunks() -> None:
    for size in (255, 256, 257, 512, 65536, 131072):
        assert checksum(b"\xff" * size) == 255 * size & 0xFF
    for size in (639, 640, 641, 131072):
        assert frame_hex(b"\xff" * size)[-2:] == b"%02x" % (2 * size * ord("f") & 0xFF)


@given(st.binary())
def test_escape_round_trip(data: bytes) -> None:
    escaped = escape(data)
    assert not set(escaped) & set(b"$#*")
    assert unescape(escaped) == data


@given(st.lists(ESCAPED, max_size=5), st.lists(st.integers(0, 1 << 16), max_size=12))
def test_packets_survive_any_split(payloads: list[bytes], places: list[int]) -> None:
    parser = Parser(LIMIT)
    stream = b"".join(map(frame, payloads))
    events = [event for piece in cut(stream, places) for event in parser.feed(piece)]
    assert events == [Event(Kind.PACKET, payload) for payload in payloads]
    assert parser.pending == 0


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_garbage_is_bounded_and_the_next_packet_is_found(pieces: list[bytes]) -> None:
    parser = Parser(LIMIT)
    for piece in pieces:
        parser.feed(piece)
        assert parser.pending <= LIMIT + len(piece)
    # Two: the first may be taken for the checksum of an unfinished packet.
    events = parser.feed(frame(b"g") + frame(b"?") + frame(b"g"))
    assert events[-1] == Event(Kind.PACKET, b"g")


@given(st.lists(st.sampled_from([b"+", b"-", b"\x03", b"$", b"#", b"00", b"$g#67", b"x"])))
def test_the_split_does_not_matter(tokens: list[bytes]) -> None:
    stream = b"".join(tokens)
    whole, drip = Parser(LIMIT), Parser(LIMIT)
    expected = whole.feed(stream)
    assert [e for at in range(len(stream)) for e in drip.feed(stream[at : at + 1])] == expected


def test_single_bytes_between_packets() -> None:
    events = Parser().feed(b"+-\x03 noise $g#67+")
    kinds = [Kind.ACK, Kind.NAK, Kind.INTERRUPT, Kind.PACKET, Kind.ACK]
    assert [event.kind for event in events] == kinds


def test_an_interrupt_within_binary_data_is_data() -> None:
    payload = b"X1000,1:\x03"
    assert Parser().feed(frame(payload)) == [Event(Kind.PACKET, payload)]


def test_wrong_checksums_are_damage() -> None:
    for wire in (b"$g#00", b"$g#zz", b"$g#+7"):
        assert [event.kind for event in Parser().feed(wire)] == [Kind.DAMAGED]


def test_a_new_packet_within_an_unfinished_one() -> None:
    assert Parser().feed(b"$m1234$g#67") == [Event(Kind.PACKET, b"g")]


def test_too_long_is_reported_once_and_skipped() -> None:
    parser = Parser(LIMIT)
    events = parser.feed(b"$" + b"a" * 100)
    for _ in range(1000):
        events += parser.feed(b"+" * 100)  # payload: no acks
        assert parser.pending == 0
    assert [event.kind for event in events] == [Kind.DAMAGED]
    assert parser.feed(b"a#00$g#67") == [Event(Kind.PACKET, b"g")]


def test_a_slow_drip_arrives() -> None:
    payload = b"X0,0:" + b"a" * 100_000
    parser = Parser()
    wire = frame(payload)
    events = [event for at in range(len(wire)) for event in parser.feed(wire[at : at + 1])]
    assert events == [Event(Kind.PACKET, payload)]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What is a packet and what is console text on a line that carries both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debugger.packet import escape, frame
from debugger.splitter import HOLD_SECONDS, LIMIT, Splitter

OK = frame(b"OK")


@pytest.fixture
def splitter() -> Splitter:
    made = Splitter()
    made.attach()
    return made


def test_without_gdb_all_is_console_text() -> None:
    splitter = Splitter()
    assert splitter.feed(b"log +" + OK + b"$", 0) == (b"log +" + OK + b"$", b"")


def test_a_reply_amid_the_log(splitter: Splitter) -> None:
    splitter.sent(frame(b"g"))
    text, packets = splitter.feed(b"[1.0] eth0: up\r\n+[1.1] a" + OK + b"b + c\r\n", 0)
    assert packets == b"+" + OK
    assert text == b"[1.0] eth0: up\r\n[1.1] ab + c\r\n"


def test_an_acknowledgement_only_where_one_is_due(splitter: Splitter) -> None:
    assert splitter.feed(b"1 + 1 - 2", 0) == (b"1 + 1 - 2", b"")
    splitter.sent(frame(b"m0,1") + b"+")
    assert splitter.feed(b"-+", 0) == (b"+", b"-")
    splitter.sent(frame(b"QStartNoAckMode"))
    assert splitter.feed(b"+" + OK, 0) == (b"", b"+" + OK)
    splitter.sent(b"+" + frame(b"g"))
    assert splitter.feed(b"a + b", 0) == (b"a + b", b"")
    splitter.detach()
    splitter.attach()  # the next gdb starts anew
    splitter.sent(frame(b"g"))
    assert splitter.feed(b"+", 0) == (b"", b"+")


@pytest.mark.parametrize(
    "text",
    [b"$ ls\r\n", b"/ $ \x1b[6n", b"cost: $\r\n", b"$foo#\x1b", b"$foo#00", b"$x$ y", b"#ab"],
)
def test_a_dollar_that_begins_no_packet(splitter: Splitter, text: bytes) -> None:
    assert splitter.feed(text, 0) == (text, b"")


def test_a_dollar_is_held_back_for_a_while(splitter: Splitter) -> None:
    assert splitter.feed(b"root$", 1.0) == (b"root", b"")
    assert splitter.expire(1.0 + HOLD_SECONDS / 2) == b""
    assert splitter.holding
    assert splitter.expire(1.0 + HOLD_SECONDS) == b"$"
    assert splitter.feed(b"$HO", 2.0) == (b"", b"")
    assert splitter.detach() == b"$HO"
    assert not splitter.holding


def test_what_is_longer_than_a_packet_is_text(splitter: Splitter) -> None:
    text = b"$" + b"x" * (LIMIT + 1)
    assert splitter.feed(text, 0) == (text, b"")
    text = b"$" + b"x" * (LIMIT - 1)
    assert splitter.feed(text, 0) == (b"", b"")
    assert splitter.feed(b"##00", 0)[0].startswith(text)


CONSOLE = st.binary(max_size=30).map(lambda data: data.translate(None, b"$+-"))
PACKET = st.binary(min_size=1, max_size=20).map(lambda data: frame(b"m" + escape(data)))


@given(st.lists(st.tuples(CONSOLE, PACKET), max_size=6), st.integers(1, 9))
def test_all_is_found_however_it_is_split(parts: list[tuple[bytes, bytes]], step: int) -> None:
    splitter = Splitter()
    splitter.attach()
    line = b"".join(text + packet for text, packet in parts)
    texts, packets = b"", b""
    for at in range(0, len(line), step):
        text, packet = splitter.feed(line[at : at + step], 0)
        texts, packets = texts + text, packets + packet
    assert texts == b"".join(text for text, _ in parts)
    assert packets == b"".join(packet for _, packet in parts)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"$", b"#", OK, b"+"]), max_size=20))
def test_no_byte_is_lost_or_made(chunks: list[bytes]) -> None:
    splitter = Splitter()
    splitter.attach()
    splitter.sent(frame(b"g") * 3)
    out = [part for chunk in chunks for part in splitter.feed(chunk, 0)] + [splitter.detach()]
    assert sorted(b"".join(out)) == sorted(b"".join(chunks))

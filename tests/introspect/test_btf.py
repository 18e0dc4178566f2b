# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.btf import SIGNED, Btf, Kind
from introspect.errors import Corrupt, IntrospectError, NotFound
from tests.introspect.btfwriter import BtfWriter


def sample() -> BtfWriter:
    """Structs, an anonymous union, bitfields, enums and a prototype."""
    w = BtfWriter()
    integer, char = w.int("int", 4, SIGNED), w.int("char", 1)
    name = w.array(char, 16)
    inner = w.struct("inner", 8, [("x", integer, 0), ("y", integer, 32)])
    union = w.struct("", 8, [("u", inner, 0), ("raw", integer, 0)], kind=Kind.UNION)
    pairs = w.array(inner, 3)
    pointer = w.add(Kind.PTR, target=w.next + 1)
    outer = w.next
    w.struct(
        "outer",
        64,
        [("name", name, 0), ("", union, 128), ("low", integer, 192), ("high", integer, 195),
         ("pairs", pairs, 224), ("next", pointer, 448)],
        bits={"low": 3, "high": 5},
    )  # fmt: skip
    assert outer == pointer + 1
    w.add(Kind.TYPEDEF, "outer_t", target=w.add(Kind.CONST, target=outer))
    w.add(
        Kind.ENUM, "colour", size=4, count=2, flag=True,
        extra=struct.pack("<IiIi", w.name("RED"), -1, w.name("BLUE"), 7),
    )  # fmt: skip
    proto = w.add(
        Kind.FUNC_PROTO, target=integer, count=2,
        extra=struct.pack("<IIII", w.name("o"), pointer, w.name("n"), integer),
    )  # fmt: skip
    w.add(Kind.FUNC, "paint", target=proto)
    w.add(
        Kind.ENUM64, "wide", size=8, count=1, extra=struct.pack("<III", w.name("TOP"), 1, 1 << 31)
    )
    return w


def test_members_paths_bitfields_and_anonymous_unions() -> None:
    outer = Btf(sample().blob()).struct("outer")
    assert outer.size == 64
    assert outer.offset("u.y") == 16 + 4
    assert outer.offset("raw") == 16
    assert outer.offset("pairs[2].y") == 28 + 16 + 4
    assert outer.member("low")[:2] == (192, 3)
    assert outer.member("high")[:2] == (195, 5)
    assert outer.has("raw") and not outer.has("name[0]") and not outer.has("none")
    with pytest.raises(NotFound, match=r"struct outer has no member 'none'"):
        outer.member("none")


def test_spellings() -> None:
    btf = Btf(sample().blob())
    outer = btf.struct("outer")
    assert outer.member("name").type.spelling == "char [16]"
    assert outer.member("next").type.spelling == "struct outer *"
    assert btf.find("outer_t").strip() is outer
    assert btf.find("outer_t").target.spelling == "const struct outer"
    assert btf.function("paint").declare("paint") == "int paint(struct outer *o, int n)"


def test_enums() -> None:
    btf = Btf(sample().blob())
    assert btf.find("enum colour").enumerators == [("RED", -1), ("BLUE", 7)]
    assert btf.find("enum wide").enumerators == [("TOP", 1 | 1 << 63)]


def test_split_btf_goes_on_where_the_base_ends() -> None:
    writer = sample()
    base = Btf(writer.blob())
    more = BtfWriter(writer.next, len(writer.strings))
    outer = base.struct("outer").id
    more.struct("device", 72, [("o", outer, 0), ("extra", base.find("int").id, 512)])
    split = Btf(more.blob(), base)
    assert split.struct("device").offset("o.u.y") == 20
    assert split.struct("device").offset("extra") == 64
    assert split.struct("inner") is base.struct("inner")
    with pytest.raises(NotFound):
        base.struct("device")


@pytest.mark.parametrize("cut", [0, 10, 24, 40, 100])
def test_truncated_blobs_are_corrupt(cut: int) -> None:
    with pytest.raises(Corrupt):
        Btf(sample().blob()[:cut])


def test_circles_end() -> None:
    w = BtfWriter()
    w.add(Kind.TYPEDEF, "a", target=2)
    w.add(Kind.TYPEDEF, "b", target=1)
    w.add(Kind.PTR, target=3)
    w.array(4, 1 << 31)
    w.struct("s", 8, [("", 5, 0)])
    btf = Btf(w.blob())
    with pytest.raises(Corrupt, match="do not end"):
        btf.find("a").strip()
    assert btf.type(3).spelling
    assert btf.type(4).size == 0
    with pytest.raises(Corrupt, match="do not end"):
        btf.struct("s").has("x")


def test_anonymous_members_are_looked_through_once() -> None:
    """Each struct has four of the next one: one by one there would be 4 ** 16 of the last."""
    w = BtfWriter()
    inner = w.struct("last", 4, [("x", w.int("int", 4), 32)])
    for level in range(16):
        inner = w.struct(f"s{level}", 4, [("", inner, 8)] * 4)
    assert Btf(w.blob()).struct("s15").member("x").bit_offset == 32 + 16 * 8


def test_variables_of_variables_have_no_size() -> None:
    w = BtfWriter()
    w.add(Kind.VAR, "self", target=1, extra=struct.pack("<I", 0))
    w.add(Kind.VAR, "round", target=3, extra=struct.pack("<I", 0))
    w.array(2, 7)
    btf = Btf(w.blob())
    assert [btf.type(number).size for number in (1, 2, 3)] == [0, 0, 0]


def touch_all(btf: Btf) -> None:
    """Asks every type everything."""
    for type_id in range(btf.end):
        for ask in ("spelling", "size", "members", "enumerators", "parameters", "variables"):
            try:
                getattr(btf.type(type_id), ask)
                btf.type(type_id).has("x")
            except IntrospectError:
                pass


@given(st.data())
def test_mutated_blobs_raise_only_our_errors(data: st.DataObject) -> None:
    blob = bytearray(sample().blob())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] = data.draw(st.integers(0, 255))
    try:
        touch_all(Btf(blob[: data.draw(st.integers(0, len(blob)))]))
    except IntrospectError:
        pass


@given(st.binary(max_size=400))
def test_random_types_raise_only_our_errors(types: bytes) -> None:
    w = BtfWriter()
    w.types = types
    try:
        touch_all(Btf(w.blob()))
    except IntrospectError:
        pass

# SPDX-License-Identifier: GPL-2.0-or-later
"""A module's BTF on top of a vmlinux's, both made in code."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debugger import modulebtf, modulefile
from introspect.btf import SIGNED, Btf, Kind
from introspect.errors import Corrupt, IntrospectError
from tests.introspect.btfwriter import BtfWriter


def vmlinux() -> tuple[Btf, dict[str, int]]:
    w = BtfWriter()
    ids = {"int": w.int("int", 4, SIGNED), "char": w.int("char", 1)}
    ids["list_head"] = w.next + 1
    pointer = w.add(Kind.PTR, target=ids["list_head"])
    w.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    ids["either"] = w.struct("either", 4, [("a", ids["int"], 0)], kind=Kind.UNION)
    bare = w.struct("", 4, [("counter", ids["int"], 0)])
    ids["atomic_t"] = w.add(Kind.TYPEDEF, "atomic_t", target=bare)
    ids["unused"] = w.struct("unused", 4, [("x", ids["int"], 0)])
    values = struct.pack("<IiIi", w.name("RED"), 0, w.name("BLUE"), 7)
    ids["colour"] = w.add(Kind.ENUM, "colour", size=4, count=2, extra=values)
    return Btf(w.blob()), ids


def module(base: Btf, ids: dict[str, int], bad: int | None = None) -> Btf:
    return Btf(writer(base, ids, bad).blob(), base)


def writer(base: Btf, ids: dict[str, int], bad: int | None = None) -> BtfWriter:
    w = BtfWriter(base.end, base.string_end)
    name = w.array(ids["char"], 16)
    mine = w.next + 1
    own = w.add(Kind.PTR, target=mine)
    w.struct(
        "device", 64,
        [("links", ids["list_head"], 0), ("name", name, 128), ("users", ids["atomic_t"], 256),
         ("next", own, 320), ("colour", ids["colour"], 384), ("bits", ids["int"], 416),
         ("either", bad or ids["either"], 448)],
        bits={"bits": 3},
    )  # fmt: skip
    proto = w.add(
        Kind.FUNC_PROTO, target=ids["int"], count=2,
        extra=struct.pack("<4I", w.name("d"), own, w.name("n"), ids["int"]),
    )  # fmt: skip
    w.add(Kind.TYPEDEF, "callback_t", target=proto)
    w.add(Kind.FUNC, "paint", target=proto)
    return w


def test_a_modules_types_need_no_vmlinux() -> None:
    base, ids = vmlinux()
    split = module(base, ids)
    made = Btf(modulebtf.whole(split))
    device = made.struct("device")
    wanted = [(m.name, m.bit_offset, m.bit_size) for m in split.struct("device").members]
    assert [(m.name, m.bit_offset, m.bit_size) for m in device.members] == wanted
    assert device.size == 64
    types = {member.name: member.type for member in device.members}
    assert types["name"].spelling == "char [16]" and types["name"].size == 16
    assert types["next"].target is device
    # without a name: copied; with one: left to the kernel's own file
    assert types["users"].spelling == "atomic_t" and types["users"].strip().has("counter")
    assert types["links"].kind is types["either"].kind is Kind.FWD
    assert types["links"].spelling == "struct list_head"
    assert types["either"].spelling == "union either"
    assert types["colour"].enumerators == [("RED", 0), ("BLUE", 7)]
    assert made.find("callback_t").strip().spelling == "int (struct device *d, int n)"
    assert not any(kind.name == "unused" for kind in made.of_kind(Kind.STRUCT))


def test_it_becomes_dwarf() -> None:
    base, ids = vmlinux()
    sections = modulefile.types(module(base, ids))
    assert set(sections) == {".debug_abbrev", ".debug_info", ".debug_str"}
    assert b"\0device\0" in sections[".debug_str"]
    assert b"unused" not in sections[".debug_str"]


def test_references_beyond_the_end() -> None:
    base, ids = vmlinux()
    with pytest.raises(Corrupt, match="no type 4096"):
        modulebtf.whole(module(base, ids, bad=4096))


def test_a_type_that_contains_itself() -> None:
    base, ids = vmlinux()
    with pytest.raises(Corrupt, match="made of itself"):
        modulefile.types(module(base, ids, bad=base.end + 2))  # struct device in struct device


@given(st.data())
def test_damaged_blobs_are_refused_or_made_whole(data: st.DataObject) -> None:
    base, ids = vmlinux()
    blob = bytearray(writer(base, ids).blob())
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(24, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        modulefile.types(Btf(bytes(blob), base))
    except IntrospectError:
        pass  # anything else is a mistake

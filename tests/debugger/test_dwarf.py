# SPDX-License-Identifier: GPL-2.0-or-later
"""DWARF from BTF blobs made in code, read back by pyelftools, readelf and gdb."""

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from debugger import abbreviations, dwarf, elf
from debugger.elf import Section, SectionType
from debugger.globals import GLOBALS, plain_btf
from introspect.btf import BOOL, SIGNED, Btf, Kind, split_blob
from introspect.errors import Corrupt, IntrospectError
from tests.introspect.btfwriter import BtfWriter

ADDRESS = 0xFFFFFFFF82000000


def sample() -> BtfWriter:
    """Each kind once, and forward references."""
    w = BtfWriter()
    integer, char, truth = w.int("int", 4, SIGNED), w.int("char", 1), w.int("_Bool", 1, BOOL)
    text, flexible = w.array(char, 16), w.array(integer, 0)
    union = w.struct("", 8, [("u", integer, 0), ("raw", truth, 0)], kind=Kind.UNION)
    node = w.next + 1
    pointer = w.add(Kind.PTR, target=node)
    w.struct(
        "node",
        64,
        [("name", text, 0), ("", union, 128), ("low", integer, 192), ("high", integer, 195),
         ("next", pointer, 256), ("call", w.next + 4, 320), ("tail", flexible, 512)],
        bits={"low": 3, "high": 5},
    )  # fmt: skip
    w.add(Kind.TYPEDEF, "node_t", target=w.add(Kind.CONST, target=node))
    proto = w.add(
        Kind.FUNC_PROTO, target=0, count=3,
        extra=struct.pack("<6I", w.name("n"), pointer, w.name("x"), integer, 0, 0),
    )  # fmt: skip
    assert w.add(Kind.PTR, target=proto) == node + 4
    w.add(
        Kind.ENUM, "colour", size=4, count=2, flag=True,
        extra=struct.pack("<IiIi", w.name("RED"), -1, w.name("BLUE"), 7),
    )  # fmt: skip
    w.add(Kind.ENUM64, "wide", size=8, count=1, extra=struct.pack("<3I", w.name("TOP"), 1, 8))
    w.add(Kind.FWD, "elsewhere")
    w.add(Kind.FWD, "either", flag=True)
    w.add(Kind.VOLATILE, target=integer)
    w.add(Kind.TYPEDEF, "tagged", target=w.add(Kind.TYPE_TAG, "user", target=pointer))
    w.add(Kind.VAR, "current_node", target=pointer, extra=struct.pack("<I", 1))
    w.add(Kind.FLOAT, "double", size=8)
    w.add(Kind.FUNC, "paint", target=proto)
    return w


def unit(blob: bytes) -> dwarf.Unit:
    return dwarf.Unit(Btf(blob), split_blob(blob)[1])


def file_of(made: dwarf.Unit, blob: bytes) -> bytes:
    debug = {
        ".debug_abbrev": abbreviations.section(),
        ".debug_info": made.section(),
        ".debug_str": elf.safe_names(split_blob(blob)[1], spaces=True),
    }
    text = Section(".text", SectionType.NOBITS, elf.ALLOC_EXEC, ADDRESS - 4096, size=4096)
    room = Section(".data", SectionType.NOBITS, elf.ALLOC_WRITE, ADDRESS, size=4096)
    parts = [Section(name, SectionType.PROGBITS, data=data) for name, data in debug.items()]
    return elf.assemble([text, room, *parts])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    blob = sample().blob()
    made = unit(blob)
    made.variables({"root": "struct node", "banner": "const char []", "none": "struct absent"},
                   lambda name: ADDRESS + 8 * len(name))  # fmt: skip
    path = tmp_path / "types.elf"
    path.write_bytes(file_of(made, blob))
    return path


def asked(path: Path, *commands: str) -> str:
    line = ["gdb", "-nx", "-q", "--batch", "-iex", "set osabi none", "-ex", f"file {path}"]
    for command in commands:
        line += ["-ex", command]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert not done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not installed")
def test_gdb_prints_the_types(file: Path) -> None:
    out = asked(file, "ptype/o struct node")
    for line in (
        "/*      0      |      16 */    char name[16];",
        "/*     24: 0   |       4 */    int low : 3;",
        "/*     24: 3   |       4 */    int high : 5;",
        "/*     32      |       8 */    struct node *next;",
        "/*     40      |       8 */    void (*call)(struct node *, int, ...);",
        "/*     64      |       0 */    int tail[0];",
        "/* total size (bytes):   64 */",
    ):
        assert line in out
    assert asked(file, "whatis (node_t *)0", "ptype node_t").startswith(
        "type = node_t *\ntype = const struct node {\n"
    )
    assert asked(file, "ptype enum colour") == "type = enum colour {RED = -1, BLUE = 7}\n"
    assert asked(file, "p (long)TOP") == f"$1 = {8 << 32 | 1}\n"
    assert asked(file, "ptype tagged").startswith("type = struct node {")
    assert asked(file, "whatis current_node", "info address root", "whatis banner") == (
        "type = struct node *\n"
        f'Symbol "root" is static storage at address {ADDRESS + 32:#x}.\n'
        "type = const char []\n"
    )


@pytest.mark.skipif(not shutil.which("readelf"), reason="binutils are not installed")
def test_readelf_has_no_complaint(file: Path) -> None:
    line = ["readelf", "--debug-dump=info,abbrev,str", str(file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert "DW_TAG_structure_type" in done.stdout
    assert not done.stderr


def test_pyelftools_reads_every_die(file: Path) -> None:
    with file.open("rb") as opened:
        (cu,) = ELFFile(opened).get_dwarf_info().iter_CUs()
        dies = list(cu.iter_DIEs())
        by_name = {
            die.attributes["DW_AT_name"].value: die
            for die in dies
            if "DW_AT_name" in die.attributes
        }
        for die in dies:
            if "DW_AT_type" in die.attributes:
                assert die.get_DIE_from_attribute("DW_AT_type").tag
    assert by_name[b"elsewhere"].tag == "DW_TAG_structure_type"
    assert by_name[b"either"].tag == "DW_TAG_union_type"
    assert by_name[b"high"].attributes["DW_AT_data_bit_offset"].value == 195
    assert b"none" not in by_name
    assert b"paint" not in by_name


def test_bitfields_of_old_pahole(tmp_path: Path) -> None:
    w = BtfWriter()
    three = w.add(Kind.INT, "int", size=4, extra=struct.pack("<I", SIGNED << 24 | 2 << 16 | 3))
    w.struct("old", 4, [("bits", three, 8)])
    (tmp_path / "old").write_bytes(file_of(unit(w.blob()), w.blob()))
    if shutil.which("gdb"):
        assert "/*      1: 2   |       4 */    int bits : 3;" in asked(
            tmp_path / "old", "ptype/o struct old"
        )


def test_kernels_without_btf_have_cs_own_types() -> None:
    made = unit(plain_btf())
    before = len(made.section())
    made.variables(GLOBALS, lambda _name: ADDRESS)
    text = made.section()
    assert b"jiffies\0" in text and b"linux_banner\0" in text and b"panic_cpu\0" in text
    assert b"init_task\0" not in text  # struct task_struct is not known
    assert len(text) > before


def circle(kind: Kind) -> bytes:
    w = BtfWriter()
    w.add(kind, "t" if kind is Kind.TYPEDEF else "", target=2)
    w.add(kind, "u" if kind is Kind.TYPEDEF else "", target=1)
    return w.blob()


def containing_itself() -> bytes:
    w = BtfWriter()
    w.struct("a", 8, [("b", 2, 0)])
    w.array(1, 2)
    return w.blob()


def chain(length: int) -> bytes:
    w = BtfWriter()
    for number in range(length):
        w.add(Kind.PTR, target=number)
    return w.blob()


@pytest.mark.parametrize(
    "blob",
    [
        *(circle(kind) for kind in (Kind.TYPEDEF, Kind.CONST, Kind.PTR, Kind.TYPE_TAG)),
        containing_itself(),
        chain(1000),
    ],
)
def test_types_that_gdb_would_follow_without_end(blob: bytes) -> None:
    with pytest.raises(Corrupt, match=r"made of itself|nested too deeply"):
        unit(blob)


def test_references_to_types_that_are_not_there() -> None:
    w = BtfWriter()
    w.struct("a", 8, [("b", 77, 0)])
    with pytest.raises(Corrupt, match="types it does not have"):
        unit(w.blob())


@given(st.data())
def test_mutated_btf_makes_a_readable_file_or_an_error(data: st.DataObject) -> None:
    blob = bytearray(sample().blob())
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(24, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = unit(bytes(blob))
        made.variables({"root": "struct node", "x": "char *"}, lambda _name: ADDRESS)
    except IntrospectError:
        return
    (cu,) = ELFFile(io.BytesIO(file_of(made, bytes(blob)))).get_dwarf_info().iter_CUs()
    for die in cu.iter_DIEs():
        if "DW_AT_type" in die.attributes:
            assert die.get_DIE_from_attribute("DW_AT_type").tag

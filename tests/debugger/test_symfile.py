# SPDX-License-Identifier: GPL-2.0-or-later
import io
import os
from array import array
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from debugger import elf, symfile
from debugger.errors import SymbolFileError
from introspect.kallsyms import SymbolTable
from tests.debugger.conftest import PlainKernel

LINKED = 0xFFFFFFFF81000000
KASLR = 0x12E00000
PERCPU = [("fixed_percpu_data", "D", 0), ("current_task", "D", 0x1FB80)]
IMAGE = [
    ("_text", "T", 0), ("startup_64", "T", 0), ("helper", "t", 0x40), ("helper", "t", 0x80),
    ("_etext", "T", 0x1000), ("linux_banner", "D", 0x2000), ("jiffies", "D", 0x2100),
    ("_sinittext", "T", 0x3000), ("start_kernel", "T", 0x3010), ("_einittext", "T", 0x4000),
    ("saved_command_line", "d", 0x4008), ("_end", "B", 0x5000), ("beyond", "b", 0x6000),
]  # fmt: skip


def make_table(absolute: list, image: list, base: int = LINKED + KASLR) -> SymbolTable:
    rows = absolute + image
    names, starts = b"\0", array("I")
    for name, _, _ in rows:
        starts.append(len(names))
        names += name.encode("latin1") + b"\0"
    types = "".join(kind for _, kind, _ in rows).encode()
    return SymbolTable(
        base, len(absolute), array("Q", [at for _, _, at in rows]), types, names, starts
    )


def parse(data: bytes) -> ELFFile:
    return ELFFile(io.BytesIO(data))


def test_symbols_sections_and_sizes() -> None:
    elf = parse(symfile.pack(make_table(PERCPU, IMAGE), KASLR, bytes(range(20))))
    assert (elf["e_type"], elf["e_machine"]) == ("ET_EXEC", "EM_X86_64")
    symtab = elf.get_section_by_name(".symtab")
    names = [section.name for section in elf.iter_sections()]

    def show(symbol) -> tuple:  # type: ignore[no-untyped-def, type-arg]
        index = symbol["st_shndx"]
        where = names[index] if isinstance(index, int) else index
        kind = symbol["st_info"]["type"].removeprefix("STT_")
        return symbol.name, symbol["st_value"], symbol["st_size"], kind, where

    rows = {show(symbol) for symbol in symtab.iter_symbols() if symbol.name}
    assert ("startup_64", LINKED, 0x40, "FUNC", ".text") in rows
    assert ("helper", LINKED + 0x40, 0x40, "FUNC", ".text") in rows
    assert ("helper", LINKED + 0x80, 0xF80, "FUNC", ".text") in rows
    assert ("linux_banner", LINKED + 0x2000, 0x100, "OBJECT", ".data") in rows
    assert ("start_kernel", LINKED + 0x3010, 0xFF0, "FUNC", ".init.text") in rows
    assert ("saved_command_line", LINKED + 0x4008, 0xFF8, "OBJECT", ".init.data") in rows
    assert ("current_task", 0x1FB80, 0, "OBJECT", ".data..percpu") in rows
    assert ("beyond", LINKED + 0x6000, 0, "OBJECT", "SHN_ABS") in rows
    assert len(rows) == len(PERCPU) + len(IMAGE)
    assert elf.get_section_by_name(".text")["sh_addr"] == LINKED
    binds = [symbol["st_info"]["bind"] for symbol in symtab.iter_symbols()]
    first = symtab["sh_info"]
    assert set(binds[:first]) == {"STB_LOCAL"}
    assert set(binds[first:]) == {"STB_GLOBAL"}
    note = next(elf.get_section_by_name(".note.gnu.build-id").iter_notes())
    assert note["n_desc"] == bytes(range(20)).hex()


def test_globals_have_types() -> None:
    kernel = PlainKernel(make_table(PERCPU, IMAGE), KASLR)
    elf = parse(symfile.build(kernel).read_bytes())  # type: ignore[arg-type]
    (unit,) = elf.get_dwarf_info().iter_CUs()
    found = {}
    for die in unit.iter_DIEs():
        if die.tag == "DW_TAG_variable":
            location = bytes(die.attributes["DW_AT_location"].value)
            kind = die.get_DIE_from_attribute("DW_AT_type")
            address = int.from_bytes(location[1:], "little")
            found[die.attributes["DW_AT_name"].value.decode()] = (address, kind.tag)
    assert found == {
        "jiffies": (LINKED + 0x2100, "DW_TAG_base_type"),
        "linux_banner": (LINKED + 0x2000, "DW_TAG_array_type"),
        "saved_command_line": (LINKED + 0x4008, "DW_TAG_pointer_type"),
    }


def test_names_cannot_steer_a_terminal() -> None:
    image = [*IMAGE[:2], ("a\x1b[2Jb\n\xff", "t", 0x20), *IMAGE[2:]]
    elf = parse(symfile.pack(make_table([], image), KASLR))
    names = [symbol.name for symbol in elf.get_section_by_name(".symtab").iter_symbols()]
    assert "a?[2Jb??" in names


@pytest.mark.parametrize(
    "image",
    [
        [],
        IMAGE[1:],
        [row for row in IMAGE if row[0] != "_end"],
        [("_end", "T", 0), ("_text", "T", 1)],
    ],
)
def test_tables_that_make_no_file(image: list) -> None:  # type: ignore[type-arg]
    with pytest.raises(SymbolFileError):
        symfile.pack(make_table([], image), KASLR)


ROW = st.tuples(
    st.sampled_from([name for name, _, _ in IMAGE]) | st.text("ab\x1b", max_size=5),
    st.sampled_from("tTdDaAwW?"),
    st.integers(0, 1 << 40),
)


@given(st.lists(ROW, max_size=20), st.integers(0, 5), st.integers(0, (1 << 64) - 1))
def test_any_table_makes_a_file_or_an_error(rows: list, absolute: int, base: int) -> None:  # type: ignore[type-arg]
    rows = sorted(rows[:absolute], key=lambda r: r[2]) + sorted(rows[absolute:], key=lambda r: r[2])
    table = make_table(rows[:absolute], rows[absolute:], base)
    try:
        data = symfile.pack(table, KASLR)
    except SymbolFileError:
        return
    symtab = parse(data).get_section_by_name(".symtab")
    assert symtab.num_symbols() == len(rows) + 1


def test_the_file_is_made_once_for_all_kaslr_offsets(tmp_path: Path) -> None:
    def kernel(offset: int) -> PlainKernel:
        return PlainKernel(make_table(PERCPU, IMAGE, LINKED + offset), offset, "ab" * 20)

    first = symfile.build(kernel(KASLR))  # type: ignore[arg-type]
    assert first.stat().st_mode & 0o777 == 0o600
    assert first.parent.stat().st_mode & 0o777 == 0o700
    made = first.stat().st_ino
    assert symfile.build(kernel(0)) == first  # type: ignore[arg-type]
    assert first.stat().st_ino == made
    assert [path for path in first.parent.iterdir() if path != first] == []


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VNODE_DEBUG_CACHE", str(tmp_path / "file" / "cache"))
    kernel = PlainKernel(make_table(PERCPU, IMAGE), KASLR, "not hex")
    with pytest.raises(SymbolFileError, match="cannot write"):
        symfile.build(kernel)  # type: ignore[arg-type]


def test_the_cache_keeps_what_was_last_used(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.vmlinux" for number in range(4)]
    (tmp_path / "other.syms").touch()
    for number, path in enumerate(paths[:3]):
        elf.keep(path, b"x", 3)
        os.utime(path, (number, number))
    elf.keep(paths[0], lambda: pytest.fail("it is there"), 3)
    elf.keep(paths[3], lambda: b"y", 3)
    assert {path.name for path in tmp_path.iterdir()} == {
        "0.vmlinux", "2.vmlinux", "3.vmlinux", "other.syms"
    }  # fmt: skip

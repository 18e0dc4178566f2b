# SPDX-License-Identifier: GPL-2.0-or-later
"""Call frame information from ORC rules made in code, read back by pyelftools and readelf."""

import io
import shutil
import subprocess
from array import array
from pathlib import Path

import pytest
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from debugger import elf, frames
from debugger.elf import Section, SectionType
from debugger.errors import SymbolFileError
from introspect.orc import Entry, Reg, Step

START = 0xFFFFFFFF81000000
PUSHED = Entry(16, -16, Reg.SP, Reg.PREV_SP, Step.CALL, False)
ENTRY = Entry(8, 0, Reg.SP, Reg.UNDEFINED, Step.CALL, False)
REGS = Entry(24, 0, Reg.SP, Reg.UNDEFINED, Step.REGS, True)
IRET = Entry(8, 0, Reg.SP, Reg.UNDEFINED, Step.PARTIAL, True)
SWITCHED = Entry(8, -16, Reg.SP_INDIRECT, Reg.PREV_SP, Step.CALL, False)
ALIGNED = Entry(-8, -8, Reg.BP_INDIRECT, Reg.BP, Step.CALL, False)
NOTHING = Entry(0, 0, Reg.UNDEFINED, Reg.UNDEFINED, Step.UNDEFINED, True)
RBP, RSP, RIP = 6, 7, 16


def parse(section: bytes) -> list[FDE]:
    found = ELFFile(io.BytesIO(wrap(section))).get_dwarf_info().CFI_entries()
    return [entry for entry in found if isinstance(entry, FDE)]


def wrap(section: bytes) -> bytes:
    return elf.assemble(
        [
            Section(".text", SectionType.NOBITS, elf.ALLOC_EXEC, START, size=1 << 20),
            Section(".debug_frame", SectionType.PROGBITS, data=section),
            Section(".debug_info", SectionType.PROGBITS),
            Section(".debug_abbrev", SectionType.PROGBITS),
        ]
    )


def made(rules: list[tuple[int, Entry]], end: int) -> bytes:
    writer = frames.Writer()
    writer.table(
        [START + at for at, _ in rules], [frames.translate(rule) for _, rule in rules], START + end
    )
    return writer.section()


def test_an_fde_is_a_run_of_one_kind() -> None:
    rules = [
        (0, ENTRY), (1, PUSHED), (0x20, PUSHED), (0x40, ENTRY), (0x50, NOTHING), (0x60, ENTRY),
        (0x200, REGS), (0x300, IRET), (0x310, SWITCHED), (0x320, NOTHING), (0x20000, ALIGNED),
    ]  # fmt: skip
    found = parse(made(rules, 0x20100))
    spans = [(fde["initial_location"] - START, fde["address_range"]) for fde in found]
    assert spans == [
        (0, 0x60), (0x60, 0x1A0), (0x200, 0x100), (0x300, 0x10), (0x310, 0x10),
        (0x320, 0x20000 - 0x320), (0x20000, 0x100),
    ]  # fmt: skip
    signal = [b"S" in fde.cie["augmentation"] for fde in found]
    assert signal == [False, False, True, True, True, False, False]


def test_the_rows_say_what_the_rules_say() -> None:
    found = parse(made([(0, ENTRY), (1, PUSHED), (0x41, ENTRY), (0x50, NOTHING)], 0x60))
    rows = found[0].get_decoded().table
    assert [(row["pc"] - START, row["cfa"].reg, row["cfa"].offset) for row in rows] == [
        (0, RSP, 8), (1, RSP, 16), (0x41, RSP, 8), (0x50, RSP, 8),
    ]  # fmt: skip
    assert [row[RBP].type for row in rows] == ["SAME_VALUE", "OFFSET", "SAME_VALUE", "SAME_VALUE"]
    assert rows[1][RBP].arg == -16
    assert [row[RIP].type for row in rows] == ["OFFSET", "OFFSET", "OFFSET", "UNDEFINED"]
    assert rows[0][RIP].arg == -8
    assert rows[0][3].type == "UNDEFINED"  # rbx: ORC does not follow it


def test_a_whole_pt_regs_gives_every_register() -> None:
    (found,) = parse(made([(0, REGS)], 16))
    (row,) = found.get_decoded().table
    assert (row["cfa"].reg, row["cfa"].offset) == (RSP, 24)
    places = {number: row[number].arg for number in row if isinstance(number, int)}
    # struct pt_regs, arch/x86/include/asm/ptrace.h
    assert places == {
        15: 0, 14: 8, 13: 16, 12: 24, 6: 32, 3: 40, 11: 48, 10: 56, 9: 64, 8: 72, 0: 80, 2: 88,
        1: 96, 4: 104, 5: 112, 16: 128, 51: 136, 49: 144, 7: 152, 52: 160,
    }  # fmt: skip


def test_an_exception_frame_gives_five() -> None:
    (found,) = parse(made([(0, IRET)], 16))
    (row,) = found.get_decoded().table
    saved = {n: row[n].arg for n in row if isinstance(n, int) and row[n].type == "OFFSET"}
    assert saved == {16: 0, 51: 8, 49: 16, 7: 24, 52: 32}


def test_stacks_reached_through_memory_are_expressions() -> None:
    for rule in (SWITCHED, ALIGNED, Entry(-8, 3, Reg.BP, Reg.PREV_SP, Step.CALL, False)):
        (found,) = parse(made([(0, rule)], 16))
        (row,) = found.get_decoded().table
        assert row["cfa"].expr


def test_user_mode_has_no_caller() -> None:
    writer = frames.Writer()
    writer.user()
    (found,) = parse(writer.section())
    (row,) = found.get_decoded().table
    assert row[RIP].type == "UNDEFINED"
    assert (found["initial_location"], found["address_range"]) == (0, 1 << 56)


@pytest.mark.skipif(not shutil.which("readelf"), reason="binutils are not installed")
def test_readelf_has_no_complaint(tmp_path: Path) -> None:
    rules = [(0, ENTRY), (1, PUSHED), (0x200, REGS), (0x300, IRET), (0x310, SWITCHED)]
    path = tmp_path / "frames"
    path.write_bytes(wrap(made([*rules, (0x400, ALIGNED), (0x900, NOTHING)], 0x1000)))
    line = ["readelf", "--debug-dump=frames", str(path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("FDE cie=") == 5
    assert not done.stderr


def test_rules_out_of_order() -> None:
    with pytest.raises(SymbolFileError, match="out of order"):
        frames.addresses(array("i", [0, 4, -8]), 1000)
    assert frames.addresses(array("i", [0, 4]), 1000) == [1000, 1008]


RULE = st.builds(
    Entry,
    st.integers(-(1 << 15), (1 << 15) - 1),
    st.integers(-(1 << 15), (1 << 15) - 1),
    st.integers(0, 15),
    st.integers(0, 15),
    st.sampled_from(Step),
    st.booleans(),
)


@given(st.lists(st.tuples(st.integers(0, 1 << 20), RULE), min_size=1, max_size=30))
def test_any_rules_cover_their_code_once(rules: list[tuple[int, Entry]]) -> None:
    rules = sorted(rules, key=lambda rule: rule[0])
    end = rules[-1][0] + 16
    found = parse(made(rules, end))
    at = rules[0][0]
    for fde in found:
        assert fde["initial_location"] - START == at
        at += fde["address_range"]
        assert fde.get_decoded().table
    assert at == end

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
from introspect.registers import PT_REGS

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


def test_the_instruction_behind_error_entry_has_a_rule_of_its_own() -> None:
    before, after = frames.translate(IRET), frames.translate(REGS)
    mended = frames.ERROR_RETURN
    ips, rows = [0x10, 0x1C, 0x40], [before, after, before]
    frames.amend(ips, rows, [0x19])
    assert (ips, rows) == ([0x10, 0x19, 0x1C, 0x40], [before, mended, after, before])
    frames.amend(ips, rows, [0x10, 0x44])
    assert ips == [0x10, 0x13, 0x19, 0x1C, 0x40, 0x44, 0x47]
    assert rows == [mended, before, mended, after, before, mended, before]
    frames.amend(ips, rows, [8])
    assert len(ips) == 7


def evaluate(code: bytes, registers: dict[int, int], words: dict[int, int], top: int) -> int:
    """What an expression of those operations comes to, `top` being on the stack before."""
    stack, at = [top], 0
    while at < len(code):
        operation, at = code[at], at + 1
        if 0x70 <= operation < 0x90:  # DW_OP_breg0 and on, a signed LEB128
            offset = shift = 0
            while True:
                byte, at = code[at], at + 1
                offset, shift = offset | (byte & 0x7F) << shift, shift + 7
                if not byte & 0x80:
                    break
            stack.append(registers[operation - 0x70] + offset - (offset >> shift - 1 << shift))
        elif operation == 0x08:  # DW_OP_const1u
            stack.append(code[at])
            at += 1
        elif operation == 0x06:  # DW_OP_deref
            stack.append(words[stack.pop()])
        elif operation == 0x12:  # DW_OP_dup
            stack.append(stack[-1])
        else:
            right, left = stack.pop(), stack.pop()
            stack += {
                0x16: lambda a, b: [b, a],  # DW_OP_swap
                0x1C: lambda a, b: [a - b],
                0x1E: lambda a, b: [a * b],
                0x21: lambda a, b: [a | b],
                0x22: lambda a, b: [a + b],
                0x29: lambda a, b: [int(a == b)],
            }[operation](left, right)
    return stack[-1]


@pytest.mark.parametrize("cs", [0x10, 0x33])
def test_the_frame_is_found_while_error_entry_runs_and_behind_it(cs: int) -> None:
    code = frames.ERROR_RETURN.code
    assert code[0] == 0x0F  # DW_CFA_def_cfa_expression
    cfa, rest = code[2 : 2 + code[1]], code[2 + code[1] :]
    assert rest[:2] == b"\x16\x06"  # DW_CFA_val_expression of rbp
    bp = rest[3:]
    sp, saved, now = 0x1000, 0xB0, 0xB1
    words = dict.fromkeys(range(sp - 0x100, sp + 0x100, 8), 0xFEED)
    running = words | {sp + 16: cs}  # an error code, then ip and cs
    assert evaluate(cfa, {7: sp}, running, 0) == sp + 8
    assert evaluate(bp, {6: now, 7: sp}, running, sp + 8) == now
    returned = words | {sp + 8 * PT_REGS.index("bp"): saved, sp + 8 * PT_REGS.index("cs"): cs}
    regs = sp + 8 * PT_REGS.index("ip")
    assert evaluate(cfa, {7: sp}, returned, 0) == regs
    assert evaluate(bp, {6: now, 7: sp}, returned, regs) == saved


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""The composed headers, read back by pyelftools."""

import io

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from crashdump.elf import MAX_PHDRS, PT_LOAD, Note, ProgramHeader, pack_headers, pack_notes
from crashdump.notes import CpuState, compose, prstatus, qemu_state, vmcoreinfo

WORD = st.integers(0, (1 << 64) - 1)
LOADS = st.lists(
    st.builds(ProgramHeader, st.just(PT_LOAD), WORD, WORD, WORD, WORD, st.integers(0, 7)),
    max_size=20,
)
NOTES = st.lists(
    st.builds(
        Note,
        st.text("ABCDEFGH", min_size=1, max_size=20).map(str.encode),
        st.integers(0, (1 << 32) - 1),
        st.binary(max_size=100),
    ),
    max_size=8,
)


@given(LOADS, NOTES)
def test_headers_read_back(loads: list[ProgramHeader], notes: list[Note]) -> None:
    data = pack_headers(loads, pack_notes(notes))
    core = ELFFile(io.BytesIO(data))
    assert (core["e_type"], core["e_machine"], core["e_phoff"]) == ("ET_CORE", "EM_X86_64", 64)
    segments = list(core.iter_segments())
    assert segments[0]["p_type"] == "PT_NOTE"
    assert segments[0]["p_offset"] + segments[0]["p_filesz"] == len(data)
    found = [
        ProgramHeader(
            PT_LOAD, s["p_offset"], s["p_vaddr"], s["p_paddr"], s["p_filesz"], s["p_flags"]
        )
        for s in segments[1:]
    ]
    assert found == loads
    assert all(s["p_memsz"] == s["p_filesz"] and s["p_align"] == 0 for s in segments)
    assert _parse(data[segments[0]["p_offset"] :]) == notes


def _parse(data: bytes) -> list[Note]:
    """Notes by the letter of the specification, independent of the packer."""
    found = []
    while data:
        name_size, size, kind = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8))
        at = 12 + (name_size + 3) // 4 * 4
        found.append(Note(data[12 : 12 + name_size - 1], kind, data[at : at + size]))
        data = data[at + (size + 3) // 4 * 4 :]
    return found


def test_too_many_program_headers_are_refused() -> None:
    with pytest.raises(ValueError, match="program headers"):
        pack_headers([ProgramHeader(PT_LOAD, 0, 0, 0, 0)] * MAX_PHDRS, b"")


@given(st.integers(0, 15), st.lists(WORD, min_size=27, max_size=27))
def test_prstatus_has_its_registers_at_112(cpu: int, regs: list[int]) -> None:
    note = prstatus(cpu, regs)
    assert (note.name, note.kind, len(note.desc)) == (b"CORE", 1, 336)
    assert int.from_bytes(note.desc[32:36], "little") == cpu + 1
    assert [
        int.from_bytes(note.desc[112 + 8 * i : 120 + 8 * i], "little") for i in range(27)
    ] == regs


def test_qemu_note_has_qemus_offsets(two_cpus: list[CpuState]) -> None:
    note = qemu_state(two_cpus[1])
    words = [int.from_bytes(note.desc[at : at + 8], "little") for at in range(0, 440, 8)]
    assert (note.name, note.kind, len(note.desc)) == (b"QEMU", 0, 440)
    assert words[1] == 110  # rax, the tenth of user_regs_struct
    assert words[17] == 116  # rip
    assert words[45:49:3] == [6, 8]  # bases of gdt and idt
    assert words[49:55] == [2, 0, 3, 4, 5, 1]  # cr0..cr4, kernel_gs_base


def test_a_cpu_without_registers_keeps_its_place(two_cpus: list[CpuState]) -> None:
    notes = compose(b"OSRELEASE=1\n", [two_cpus[0], None])
    assert [note.name for note in notes] == [b"VMCOREINFO", b"CORE", b"CORE"]
    assert notes[2].desc[32] == 2
    assert not any(notes[2].desc[112:])


def test_crashtime_is_dropped() -> None:
    note = vmcoreinfo(b"OSRELEASE=1\nCRASHTIME=12\nPAGESIZE=4096")
    assert note.desc == b"OSRELEASE=1\nPAGESIZE=4096\n"

# SPDX-License-Identifier: GPL-2.0-or-later
import io
from array import array
from pathlib import Path

from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from debugger import modulefile
from introspect.orc import Layout, Table
from introspect.symbols import ModuleTable, Symbol
from tests.debugger.conftest import PlainKernel
from tests.debugger.test_symfile import IMAGE, KASLR, PERCPU, make_table
from tests.introspect.test_stack import OLD, orc_layout

BASE = 0xFFFFFFFFC0200000


def module(base: int = BASE, name: str = "brd") -> ModuleTable:
    symbols = [
        Symbol("brd_init", base + 0x10, "t", name, 0x20),
        Symbol("brd_make", base + 0x40, "T", name, 0x100),
        Symbol("brd_devices", base + 0x2008, "d", name, 16),
        Symbol("in_another", base + 0x10_0000, "d", name, 8),
        Symbol("out\x1b[2J", base + 0x3000, "b", name, 0),
    ]
    return ModuleTable(name, [(base, base + 0x4000), (base + 0x10_0000, base + 0x10_1000)], symbols)


def sections_and_symbols(data: bytes) -> tuple[ELFFile, dict[str, tuple[str, int, int]]]:
    elf = ELFFile(io.BytesIO(data))
    names = [section.name for section in elf.iter_sections()]
    rows = {
        s.name: (names[s["st_shndx"]], s["st_value"], s["st_size"])
        for s in elf.get_section_by_name(".symtab").iter_symbols()
        if s.name
    }
    return elf, rows


def test_code_and_data_of_one_range_are_told_apart() -> None:
    assert modulefile.parts(module()) == [
        (BASE, BASE + 0x1000),
        (BASE + 0x1000, BASE + 0x4000),
        (BASE + 0x10_0000, BASE + 0x10_1000),
    ]
    _, rows = sections_and_symbols(modulefile.pack(module()))
    assert rows == {
        "brd_init": (".text", 0x10, 0x20),
        "brd_make": (".text", 0x40, 0x100),
        "brd_devices": (".mem1", (1 << 32) + 0x1008, 16),
        "in_another": (".mem2", 2 << 32, 8),
        "out?[2J": (".mem1", (1 << 32) + 0x2000, 0),
    }


def rules(layout: Layout, base: int) -> Table:
    """One rule at +0x10, one at +0x40, one of another section's code."""
    places = [base + 0x10, base + 0x40, base + 0x10_0000]
    ips_va = base + 0x2000
    ips = array("i", [at - ips_va - 4 * n for n, at in enumerate(places)])
    entry = (8).to_bytes(2, "little") + bytes(2) + (5).to_bytes(2, "little")
    assert layout.size == len(entry)
    return Table([(base, base + 0x4000)], ips_va, ips, 3 * entry)


def test_frames_are_those_of_the_code() -> None:
    layout = orc_layout(OLD)
    elf, _ = sections_and_symbols(modulefile.pack(module(), layout, rules(layout, BASE)))
    assert elf.get_section_by_name(".debug_frame")
    data = elf.get_section_by_name(".debug_frame").data()
    assert (0x10).to_bytes(8, "little") + (0x1000 - 0x10).to_bytes(8, "little") in data


def test_the_file_does_not_depend_on_the_place() -> None:
    layout = orc_layout(OLD)
    assert modulefile.pack(module(), layout, rules(layout, BASE)) == modulefile.pack(
        module(BASE + 0x5000_0000), layout, rules(layout, BASE + 0x5000_0000)
    )


def test_files_are_kept_by_content(tmp_path: Path) -> None:
    kernel = PlainKernel(make_table(PERCPU, IMAGE), KASLR)
    kernel.symbols._modules = [module(), module(BASE + 0x100_0000, "../../evil name")]
    (first, starts), (second, _) = modulefile.build(kernel)  # type: ignore[arg-type]
    assert starts == [BASE, BASE + 0x1000, BASE + 0x10_0000]
    assert first.name.startswith("brd-") and first.suffix == ".ko"
    assert second.parent == first.parent and second.name.startswith("______evil_name-")
    assert first.stat().st_mode & 0o777 == 0o600
    made = first.stat().st_ino
    assert modulefile.build(kernel)[0][0] == first  # type: ignore[arg-type]
    assert first.stat().st_ino == made


def test_the_end_at_user_mode() -> None:
    elf, rows = sections_and_symbols(modulefile.user_frames().read_bytes())
    assert rows == {"user_mode": (".text", 0, 1)}
    assert elf.get_section_by_name(".debug_frame").data_size > 100


SYMBOL = st.builds(
    Symbol,
    st.text(max_size=8),
    st.integers(0, (1 << 64) - 1) | st.integers(BASE, BASE + 0x4000),
    st.sampled_from("tTdD?"),
    st.just("x"),
    st.integers(0, (1 << 64) - 1),
)
RANGE = st.tuples(st.integers(0, (1 << 64) - 1), st.integers(1, 1 << 40)).map(
    lambda place: (place[0], place[0] + place[1])
)


@given(st.lists(RANGE, min_size=1, max_size=5), st.lists(SYMBOL, max_size=8))
def test_any_module_makes_a_file(ranges: list[tuple[int, int]], symbols: list[Symbol]) -> None:
    elf, rows = sections_and_symbols(modulefile.pack(ModuleTable("x", ranges, symbols)))
    assert len(rows) <= len(symbols)
    assert elf.num_sections() > 3

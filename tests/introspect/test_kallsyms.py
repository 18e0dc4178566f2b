# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from introspect import cache, kallsyms
from introspect.errors import Corrupt, IntrospectError, MemoryFault, NotFound
from introspect.kallsyms import Reader, SymbolTable
from introspect.symbols import ModuleTable, Symbol, Symbols, load
from tests.introspect.kallsymswriter import BASE, sample, write

LAYOUTS = ["4.6", "6.2", "6.4", "6.15", "7.2"]


def reader(image: bytes) -> Reader:
    def read(at: int, size: int) -> bytes:
        if at < 0 or size < 0 or at + size > len(image):
            raise MemoryFault(at, size)
        return image[at : at + size]

    return read


def symbols_of(layout: str) -> list[tuple[str, int]]:
    return sample(absolute=0 if layout in ("6.15", "7.2") else 3)


def listed(table: SymbolTable) -> list[tuple[str, int]]:
    return [(table.type_at(i) + table.name_at(i), table.address_at(i)) for i in range(len(table))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_decodes(layout: str) -> None:
    image, tables = write(symbols_of(layout), layout)
    assert listed(kallsyms.decode(reader(image), tables)) == symbols_of(layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_by_content(layout: str) -> None:
    image, tables = write(symbols_of(layout), layout)
    assert kallsyms.find(image, BASE) == tables


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_cache_gives_the_same_symbols(layout: str) -> None:
    image, tables = write(symbols_of(layout), layout)
    first = load(reader(image), tables)
    assert any(cache.directory().glob("*.syms"))
    again = load(reader(image), tables)
    assert listed(first) == listed(again) == symbols_of(layout)


def test_a_damaged_cache_file_is_passed_over() -> None:
    image, tables = write(sample(), "4.6")
    table = load(reader(image), tables)
    packed = cache.pack(table)
    assert cache.unpack(packed, table.base)
    for bad in (packed[:-1], packed[:10], b"", packed[:100] + b"\xff" + packed[101:]):
        assert cache.unpack(bad, table.base) is None


def test_kaslr_moves_relative_symbols_only() -> None:
    image, tables = write(sample(), "4.6")
    table = kallsyms.decode(reader(image), tables).rebased(BASE + 0x1000000)
    assert table.address("percpu_number_1") == 0x1000
    assert table.address("function_number_9") == BASE + 0x1000000 + 16 * 9


def test_lookups() -> None:
    image, tables = write(sample(), "4.6")
    module = Symbol("mod_fn", 0xFFFF_FFFF_C000_0010, "t", "mod", 16)
    ranges = [(0xFFFF_FFFF_C000_0000, 0xFFFF_FFFF_C000_1000)]
    symbols = Symbols(
        kallsyms.decode(reader(image), tables), lambda: [ModuleTable("mod", ranges, [module])]
    )
    assert symbols.address("function_number_20") == BASE + 320
    assert symbols.lookup(BASE + 325) == ("function_number_20", 5)
    assert symbols.describe(BASE + 325) == "function_number_20+0x5/0x10"
    assert symbols.lookup(BASE + 16 * 6) == ("function_number_6", 0)  # the first of two aliases
    assert symbols.address("mod_fn") == symbols.address("mod_fn [mod]") == module.address
    assert symbols.describe(module.address + 1) == "mod_fn+0x1/0x10 [mod]"
    assert symbols.describe(0x10) == "0x10"
    assert "function_number_20" in symbols and "function" not in symbols
    assert list(symbols.items())[4] == ("function_number_1", BASE + 16)
    for missing in ("", "nope", "mod_fn [other]"):
        with pytest.raises(NotFound):
            symbols.address(missing)
    for nowhere in (0, BASE - 1, 0xFFFF_FFFF_C000_0000, (1 << 64) - 1):
        with pytest.raises(NotFound):
            symbols.lookup(nowhere)


def test_images_without_kallsyms_say_so() -> None:
    image, _ = write(sample(), "4.6")
    with pytest.raises(NotFound, match="kallsyms"):
        kallsyms.find(bytes(100_000))
    with pytest.raises(NotFound):
        kallsyms.find(image[: len(image) // 2])


@pytest.mark.parametrize("count", [0, 3, 5_000_000, 700])
def test_a_wrong_number_of_symbols_is_corrupt(count: int) -> None:
    image, tables = write(sample(), "4.6")
    at = tables.num_syms
    image = image[:at] + count.to_bytes(4, "little") + image[at + 4 :]
    with pytest.raises(IntrospectError):
        kallsyms.decode(reader(image), tables)


def test_addresses_out_of_order_are_corrupt() -> None:
    image, tables = write(sample(), "6.4")
    at = tables.offsets + 4 * 100
    with pytest.raises(Corrupt, match="order"):
        kallsyms.decode(reader(image[:at] + b"\0\0\0\x80" + image[at + 4 :]), tables)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(LAYOUTS))
def test_mutated_tables_raise_only_our_errors(data: st.DataObject, layout: str) -> None:
    original, tables = write(symbols_of(layout), layout)
    image = bytearray(original)
    for _ in range(data.draw(st.integers(1, 8))):
        image[data.draw(st.integers(4096, len(image) - 1))] = data.draw(st.integers(0, 255))
    del image[data.draw(st.integers(len(image) // 2, len(image))) :]
    for attempt in (
        lambda: listed(kallsyms.decode(reader(bytes(image)), tables)),
        lambda: kallsyms.find(bytes(image), BASE),
    ):
        try:
            attempt()
        except IntrospectError:
            pass


@given(st.binary(max_size=3000), st.integers(0, 600))
def test_names_of_random_bytes(blob: bytes, count: int) -> None:
    try:
        parts, used = kallsyms.split_names(blob, count)
    except Corrupt:
        return
    assert len(parts) == count and used <= len(blob)


@given(st.binary(max_size=2000), st.binary(min_size=512, max_size=512))
def test_random_tokens(table: bytes, index: bytes) -> None:
    try:
        assert len(kallsyms.expand_tokens(table, index)) == 256
    except Corrupt:
        pass


def test_names_cannot_drive_a_terminal() -> None:
    table = SymbolTable(0, 0, array("Q", [0]), b"T", b"\0a\x1b[31m\0", array("I", [1]))
    assert table.name_at(0) == r"'a\x1b[31m'"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Text that cannot harm a terminal, units, tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import output
from cli.screen import cut


@given(st.text())
def test_clean_text_is_printable_and_can_be_encoded(text):
    safe = output.clean(text, keep="\n\t")
    assert all(c.isprintable() or c in "\n\t" for c in safe)
    safe.encode("utf-8")


@given(
    st.text(
        alphabet=st.characters(
            blacklist_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")
        )
    )
)
def test_clean_leaves_what_is_printable(text):
    assert output.clean(text) == text


@given(st.text())
def test_one_line_is_one_line(text):
    assert len(output.one_line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1K"),
        (256 << 20, "256M"),
        (3 << 29, "1.5G"),
        (5 << 50, "5120T"),
    ],
)
def test_sizes(n, text):
    assert output.size(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "-"),
        (0, "0.00s"),
        (9.994, "9.99s"),
        (12.34, "12.3s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (90061, "1d01h"),
    ],
)
def test_durations(seconds, text):
    assert output.duration(seconds) == text


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_table_has_a_line_a_row_and_aligned_columns(rows):
    lines = output.table(("A", "B"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    width = max([1, *(len(output.clean(a)) for a, _ in rows)])
    for line, (first, second) in zip(lines[1:], rows, strict=True):
        assert line == f"{output.clean(first):{width}}  {output.clean(second)}".rstrip()


def test_a_line_is_cut_by_what_shows_not_by_its_colours():
    assert cut("\x1b[31mabcdef\x1b[0mgh", 4) == "\x1b[31mabcd\x1b[0m"

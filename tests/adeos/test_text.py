# SPDX-License-Identifier: GPL-2.0-or-later
from hypothesis import given
from hypothesis import strategies as st

from adeos.text import c_string, printable


@given(st.binary())
def test_all_that_comes_out_is_printable(data):
    assert printable(data).isprintable()
    assert c_string(data).isprintable()
    kept = printable(data, keep="\n\t")
    assert kept.replace("\n", "").replace("\t", "").isprintable()
    assert kept.count("\n") == data.count(b"\n")


def test_escapes_are_spelled_out():
    assert printable(b"\x1b[2J\r\x9b\xc2\x9b") == r"\x1b[2J\r\x9b\x9b"
    assert printable("a\u202eb\u2028c ä".encode()) == r"a\u202eb\u2028c ä"
    assert printable(b"a\tb\n", keep="\t") == "a\tb\\n"
    assert c_string(b"name\0\x1bgarbage") == "name"

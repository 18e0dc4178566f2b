# SPDX-License-Identifier: GPL-2.0-or-later
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debugger.instruction import Kind, kind_of


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("9c", Kind.PUSHF),
        ("669c", Kind.PUSHF),
        ("9d", Kind.FLAGS),
        ("fb", Kind.FLAGS),
        ("f4", Kind.FLAGS),
        ("48cf", Kind.FLAGS),
        ("fa", Kind.CLI),
        ("480f07", Kind.LEAVES),
        ("0f35", Kind.LEAVES),
        ("0f1f440000", Kind.PLAIN),
        ("4155", Kind.PLAIN),
        ("f3489c", Kind.PUSHF),
        ("", Kind.PLAIN),
        ("0f", Kind.PLAIN),
        ("48" * 15, Kind.PLAIN),
    ],
)
def test_kinds(code: str, kind: Kind) -> None:
    assert kind_of(bytes.fromhex(code)) is kind


@given(st.binary(max_size=20))
def test_any_bytes_have_a_kind(code: bytes) -> None:
    assert kind_of(code) in Kind

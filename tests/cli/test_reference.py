# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents agree with the program."""

from pathlib import Path

from cli.reference import man, page

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_reference_is_what_the_verbs_say():
    wanted = (ROOT / "docs/commands.md").read_text()
    assert page() == wanted, "run: python -m cli.reference > docs/commands.md"


def test_the_manual_page_is_what_the_verbs_say():
    wanted = (ROOT / "docs/vnode-debug.1").read_text()
    assert man() == wanted, "run: python -m cli.reference --man > docs/vnode-debug.1"
    assert not [line for line in wanted.splitlines() if line[:1] == "'" or "\t" in line]


def test_every_script_has_a_line_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for script in (ROOT / "script").iterdir():
        assert f"`script/{script.name}" in text

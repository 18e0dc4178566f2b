# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents agree with the program."""

import re
from importlib import import_module
from pathlib import Path

import click
import pytest

from cli.errors import ExitCode
from cli.main import ENTRIES
from cli.reference import page

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_reference_is_what_the_verbs_say():
    wanted = (ROOT / "docs/commands.md").read_text()
    assert page() == wanted, "run: python -m cli.reference > docs/commands.md"


def test_the_exit_codes_are_those_of_the_architecture():
    table = dict(
        re.findall(r"^\| (\d+) \| (.+?) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
    )
    for code in ExitCode:
        if code is not ExitCode.PIPE:
            assert table[str(code.value)] == code.meaning


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/adr/0003-observers.md"])
def test_documents_name_verbs_that_exist(name):
    text = (ROOT / name).read_text()
    found = re.findall(r"(?:^|[`$] ?| )vnode-debug ([a-z][a-z-]*)(?: ([a-z]+))?", text, re.M)
    for verb, word in found:
        assert verb in ENTRIES, f"vnode-debug {verb}"
        command = import_module(ENTRIES[verb].module).command
        if isinstance(command, click.Group):
            assert word in command.commands
    assert found or name == "CONTRIBUTING.md"


def test_every_script_has_a_line_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for script in (ROOT / "script").iterdir():
        assert f"`script/{script.name}" in text

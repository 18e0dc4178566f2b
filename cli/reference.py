# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes docs/commands.md and the manual page out of the verbs themselves.

    python -m cli.reference > docs/commands.md
    python -m cli.reference --man > docs/vnode-debug.1

tests/cli/test_reference.py fails when a page in the repository is not that.
"""

import sys
from collections.abc import Iterator

import click

from cli.errors import ExitCode
from cli.main import GROUPS, PROGRAM, overview

WIDTH = 90


def page() -> str:
    """The whole page, Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield "```"
    yield from (f"{example}" for example in overview.examples)
    yield "```"
    yield ""
    yield "Written by `python -m cli.reference`. Data goes to stdout, messages to stderr."
    yield ""
    yield "| exit code | meaning |"
    yield "|---|---|"
    for code in ExitCode:
        yield f"| {code.value} | {code.meaning} |"
    top = click.Context(overview, info_name=PROGRAM)
    for title, entries in GROUPS:
        yield ""
        yield f"## {title}"
        for entry in entries:
            for path, text in _help(top, _command(top, entry.name), entry.name):
                yield from ("", f"### {path}", "", "```", text, "```")


def man() -> str:
    """The manual page vnode-debug(1), roff (groff's man(7))."""
    return "\n".join(_man()) + "\n"


def _man() -> Iterator[str]:
    from vnode_debug import __version__

    top = click.Context(overview, info_name=PROGRAM)
    yield f'.TH VNODE-DEBUG 1 "" "{PROGRAM} {__version__}"'
    yield from (".SH NAME", rf"{_roff(PROGRAM)} \- {_roff(overview.get_short_help_str(200))}")
    yield from (".SH SYNOPSIS", f"{_roff(overview.get_usage(top).removeprefix('Usage: '))}")
    yield from (".SH OPTIONS", ".nf")
    for param in overview.get_params(top):
        record = param.get_help_record(top)
        if record is not None:
            yield _roff(f"{record[0]:20}{record[1]}")
    yield ".fi"
    for title, entries in GROUPS:
        yield f".SH {title.upper()}"
        for entry in entries:
            for path, text in _help(top, _command(top, entry.name), entry.name):
                yield from (f".SS {_roff(path)}", ".nf", *map(_roff, text.splitlines()), ".fi")
    yield from (".SH EXIT STATUS", ".nf")
    yield from (_roff(f"{code.value:<5}{code.meaning}") for code in ExitCode)
    yield ".fi"


def _roff(line: str) -> str:
    """A line of text that groff prints as it is."""
    text = line.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text[:1] in (".", "'") else text


def _command(top: click.Context, name: str) -> click.Command:
    command = overview.get_command(top, name)
    assert command is not None  # GROUPS names modules that exist
    return command


def _help(parent: click.Context, command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """(words of the command, its help), and those of the verbs under it."""
    context = click.Context(command, parent=parent, info_name=name, max_content_width=WIDTH)
    context.terminal_width = WIDTH
    yield context.command_path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            sub = command.get_command(context, inner)
            if sub is not None:
                yield from _help(context, sub, inner)


if __name__ == "__main__":
    print(man() if sys.argv[1:] == ["--man"] else page(), end="")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes docs/commands.md out of the verbs themselves.

    python -m cli.reference > docs/commands.md

tests/cli/test_reference.py fails when the page in the repository is not that.
"""

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
            command = overview.get_command(top, entry.name)
            assert command is not None  # GROUPS names modules that exist
            yield from _verb(top, command, entry.name)


def _verb(parent: click.Context, command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, parent=parent, info_name=name, max_content_width=WIDTH)
    context.terminal_width = WIDTH
    yield ""
    yield f"### {context.command_path}"
    yield ""
    yield "```"
    yield command.get_help(context).rstrip()
    yield "```"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            sub = command.get_command(context, inner)
            if sub is not None:
                yield from _verb(context, sub, inner)


if __name__ == "__main__":
    print(page(), end="")

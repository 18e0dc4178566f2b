# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb-exec: gdb commands for scripts: what each printed, gave and how it failed, also as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import attach, output
from cli.errors import CliError
from cli.session import Session
from cli.verb import INCIDENT, timeout_option, verb

if TYPE_CHECKING:
    from debugger.mi import Answer


@verb(
    "gdb-exec",
    place=attach.place,
    examples=[
        "vnode-debug gdb-exec 2 -- 'p init_task.comm' 'vnode ps'",
        "vnode-debug gdb-exec 2 --json -- 'thread apply all bt' -thread-info",
        "vnode-debug gdb-exec --incident 3 -- 'vnode crash'",
        "vnode-debug gdb-exec ./vmcore -- bt",
    ],
    epilog="A command that starts with - is one of gdb's machine interface (MI). "
    "The exit code is 1 when a command failed; those after it are still run.",
)
@click.argument("target", required=False, metavar="VNODE|FILE", type=click.UNPROCESSED)
@click.argument("commands", nargs=-1, metavar="COMMAND...", type=click.UNPROCESSED)
@click.option("--incident", type=INCIDENT, help="The dump of an incident instead.")
@timeout_option
def command(
    session: Session,
    target: str | None,
    commands: tuple[str, ...],
    incident: int | None,
    timeout: float,
) -> None:
    """Give gdb commands, and print what each gave."""
    if incident is not None and target is not None:
        commands, target = (target, *commands), None
    make = attach.factory(session, target, incident)
    if not commands:
        raise click.UsageError("name a command for gdb")
    if any("\n" in one for one in commands):
        raise click.UsageError("a command is one line")
    from debugger import mi

    answers: list[Answer] = []
    try:
        for answer in mi.execute(make, commands, timeout=timeout):
            answers.append(answer)
            if not session.json:
                show(answer)
    finally:
        if session.json:
            output.write_json({"commands": [as_json(answer) for answer in answers]})
    failed = [answer for answer in answers if answer.error is not None]
    if failed:
        more = f" ({len(failed)} of {len(answers)} failed)" if len(answers) > 1 else ""
        raise CliError(f"{failed[0].command}: {failed[0].error}{more}")


def show(answer: Answer) -> None:
    """A command and what it gave, for people."""
    import json

    output.write(f"(gdb) {output.clean(answer.command)}")
    output.write(output.clean(answer.console, keep="\n\t"))
    if answer.results:
        output.write(json.dumps(answer.results, indent=2))
    if answer.error is not None:
        output.write(f"error: {output.one_line(answer.error)}")


def as_json(answer: Answer) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(answer)
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""The vnode-debug command: finds the verb, runs it, turns failures into a line and a code.

A verb's module is imported only when the verb is named, so that
"vnode-debug --help" stays under 0.15 s.  GROUPS is the table of them all.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import click

from cli.errors import ExitCode
from cli.output import one_line
from cli.session import MachineFactory, Session
from cli.verb import VerbGroup

PROGRAM = "vnode-debug"
LINE_MAX = 1000
COMPLETE = "_VNODE_DEBUG_COMPLETE"
"""The variable by which the shell asks for completions."""


class Entry(NamedTuple):
    """A verb as the overview lists it."""

    name: str
    module: str
    summary: str


GROUPS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "Look",
        (
            Entry("status", "cli.status", "Show the vnodes and their heartbeats."),
            Entry("tui", "cli.tui", "Open the dashboard."),
            Entry("boot", "cli.boot", "Show where the time of a vnode's last start went."),
            Entry("log", "cli.log", "Print a vnode's kernel log, read from its memory."),
            Entry("console", "cli.console", "Open a vnode's console."),
            Entry("incidents", "cli.incidents", "List the recorded failures."),
            Entry("show", "cli.show", "Show one incident in full."),
            Entry("events", "cli.events", "Show what the daemon saw and did."),
            Entry("history", "cli.history", "Show the states of a vnode over time."),
            Entry("metrics", "cli.metrics", "Print figures for Prometheus, or serve them."),
            Entry("doctor", "cli.doctor", "Check this machine and tell its limits."),
        ),
    ),
    (
        "Run",
        (
            Entry("up", "cli.up", "Load kmb.ko and start the daemon."),
            Entry("down", "cli.down", "Stop the vnodes and the daemon; give back what 'up' took."),
            Entry("start", "cli.start", "Start vnodes."),
            Entry("stop", "cli.stop", "Stop vnodes."),
            Entry("restart", "cli.restart", "Restart vnodes."),
            Entry("fence", "cli.fence", "Park vnodes' CPUs for good and keep their memory."),
            Entry("clear", "cli.clear", "Take vnodes out of quarantine."),
            Entry("stage", "cli.stage", "Stage an image for a vnode's next start."),
            Entry("slots", "cli.slots", "Show the images that vnodes start from."),
            Entry("bless", "cli.bless", "Call a vnode's slot good, or bad."),
            Entry("freeze", "cli.freeze", "Freeze a vnode, keep its image, and let it go on."),
            Entry("images", "cli.images", "List the images that vnodes are resumed from."),
        ),
    ),
    (
        "Debug",
        (
            Entry("attach", "cli.attach", "Open gdb on the kernels of vnodes, alive or dead."),
            Entry("gdb-exec", "cli.gdb_exec", "Give gdb commands, and print what each gave."),
            Entry("drgn", "cli.drgn", "Open drgn on a kernel, also without debuginfo."),
            Entry("grant", "cli.grant", "Let a vnode look at another's kernel."),
            Entry("revoke", "cli.revoke", "Take a grant back."),
            Entry("dump", "cli.dump", "Write a vnode's memory as a vmcore."),
            Entry("analyze", "cli.analyze", "Explain a crash from memory alone."),
            Entry("export", "cli.export", "Write an incident's dump in another format."),
            Entry("inject", "cli.inject", "Make a vnode fail, to try things out."),
        ),
    ),
    (
        "Machine",
        (
            Entry("box", "cli.box", "Run the box: an SMP machine in a QEMU process."),
            Entry("config", "cli.config", "Check the config file."),
            Entry("successor", "cli.successor", "Watch the root, and record its end."),
            Entry("reload", "cli.reload", "Have the daemon read its config anew."),
            Entry("daemon", "cli.daemon", "Run the daemon in the foreground."),
            Entry("completion", "cli.completion", "Print the shell's completion script."),
        ),
    ),
)
ENTRIES = {entry.name: entry for _, entries in GROUPS for entry in entries}


class Overview(VerbGroup):
    """The top level: lists verbs by purpose and imports the one that is named."""

    examples = (
        "vnode-debug box up && vnode-debug up",
        "vnode-debug status --watch",
        "vnode-debug attach 2",
    )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = ENTRIES.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = import_module(entry.module).command
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in GROUPS:
            with formatter.section(title):
                formatter.write_dl([(e.name, e.summary) for e in entries])
        click.Command.format_options(self, ctx, formatter)


def print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """The --version option."""
    if value:
        from vnode_debug import __version__

        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


@click.command(
    cls=Overview,
    epilog=("vnode-debug VERB --help starts with examples. Exit codes: docs/commands.md."),
)
@click.option("-q", "--quiet", is_flag=True, help="No notes and no progress on stderr.")
@click.option("--host", metavar="USER@MACHINE", help="Do it on another machine, over ssh.")
@click.option("--remote-end", is_flag=True, hidden=True)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Print the version.",
)
@click.pass_context
def overview(ctx: click.Context, quiet: bool, host: str | None, remote_end: bool) -> None:
    """Fault containment and debugging for Linux kernels side by side on one machine."""
    session = ctx.ensure_object(Session)
    session.quiet = quiet
    if host is not None:
        from cli.remote import machine_at

        session.host = machine_at(host)
    if remote_end:
        from cli.remote import end_with_the_caller

        end_with_the_caller()


def explain(error: BaseException) -> tuple[int, str]:
    """(exit code, one line) for whatever ended a verb."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return ExitCode.INTERRUPTED, "interrupted"
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else PROGRAM
        return error.exit_code, f"{error.format_message().rstrip('.')} (see {path} --help)"
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code, str(error)
    if isinstance(error, OSError):
        import errno

        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror or error}"
        return ExitCode.NO_SPACE if full else ExitCode.FAILED, text
    return ExitCode.FAILED, (
        f"internal error, {type(error).__name__}: {error}; "
        "VNODE_DEBUG_TRACEBACK=1 shows where, please report it"
    )


def clip(line: str) -> str:
    """A line that may quote a hostile argument, cut to what a person reads."""
    return line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}..."


def invoke(arguments: list[str], session: Session) -> int:
    """Parse and run; the exit code.  Not click's main(), which ends the process by itself."""
    wanted = os.environ.get(COMPLETE)
    if wanted:
        from click.shell_completion import shell_complete

        return shell_complete(overview, {"obj": session}, PROGRAM, COMPLETE, wanted)
    try:
        with overview.make_context(PROGRAM, arguments, obj=session) as context:
            result = overview.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return result if isinstance(result, int) else ExitCode.DONE


def run(
    arguments: Sequence[str],
    machine: MachineFactory | None = None,
) -> int:
    """Run one command line and return its exit code.

    A failure is one line on stderr; a wrong config file, a line a mistake.

    machine replaces the opener of /dev/kmb.
    """
    session = Session(machine_factory=machine)
    try:
        code = invoke(list(arguments), session)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit: give it a quiet place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.PIPE
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("VNODE_DEBUG_TRACEBACK"):
            raise
        code, text = explain(error)
        for line in text.splitlines() if code == ExitCode.CONFIG else [text]:
            print(f"{PROGRAM}: {clip(one_line(line))}", file=sys.stderr)
        return code

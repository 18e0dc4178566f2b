# SPDX-License-Identifier: GPL-2.0-or-later
"""analyze: what happened to a kernel, from its memory alone: no debuginfo, no daemon."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.errors import CliError, NotFound
from cli.session import Session
from cli.verb import INCIDENT, Place, verb

if TYPE_CHECKING:
    from crashdump.analysis.report import Report
    from crashdump.analysis.subject import Subject

PANELS = (
    "reason", "instruction", "registers", "backtrace", "cpus", "locks", "hung", "log",
    "runqueues", "rcu", "memory", "modules", "system", "blocked", "tasks",
)  # fmt: skip
STDOUT = "-"


def place(given: Mapping[str, Any]) -> Place:
    """Files are read here; an incident where its store is, but an HTML file must come here."""
    return Place.EITHER if is_number(given["target"]) else Place.HERE


def is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


@verb(
    "analyze",
    place=place,
    examples=[
        "vnode-debug analyze 3                        incident 3",
        "vnode-debug analyze ./vmcore -M locks -M hung",
        "vnode-debug analyze ./vmcore --html report.html",
        "vnode-debug analyze ./box.ram --kernels       which kernels are in it",
        "vnode-debug analyze ./box.ram --kernel 2",
        "vnode-debug analyze 3 --html - > report.html",
        "vnode-debug analyze 3 --json | jq -r .title",
    ],
)
@click.argument("target", metavar="FILE|INCIDENT")
@click.option(
    "-M",
    "--module",
    "modules",
    type=click.Choice(PANELS),
    multiple=True,
    metavar="MODULE",
    help=f"Only this part, may be repeated: {', '.join(PANELS)}.",
)
@click.option(
    "--html", metavar="OUT", help="Write one redacted HTML file that needs nothing else; - is here."
)
@click.option(
    "--kernel",
    type=click.IntRange(0, 63),
    default=0,
    metavar="N",
    help="The Nth kernel in a memory that holds several, from 0.",
)
@click.option("--kernels", "listing", is_flag=True, help="List the kernels in a file and end.")
@click.option("--how", is_flag=True, help="Show the gdb, drgn and crash lines for each part.")
def command(
    session: Session,
    target: str,
    modules: tuple[str, ...],
    html: str | None,
    kernel: int,
    listing: bool,
    how: bool,
) -> None:
    """Explain a crash from memory alone."""
    if listing:
        list_kernels(session, target)
        return
    report = analyze(session, target, modules, kernel)
    if html is not None:
        write_html(session, report, html)
    if session.json:
        import msgspec

        output.write_json(msgspec.to_builtins(report))
    elif html is None:
        from crashdump.analysis.text import render

        output.write(render(report, commands=how))


def analyze(session: Session, target: str, modules: tuple[str, ...], kernel: int) -> Report:
    """The report on a file, or on an incident when the word is a number."""
    from crashdump.analysis import run

    if is_number(target):
        number = INCIDENT.convert(target, None, None)
        if kernel:
            raise click.UsageError("--kernel goes with a file: an incident is one kernel's")
        held = root_in_place(session, number)
        if held is not None:
            return run.analyze(held, incident=number, only=modules)
        return run.analyze_incident(session.store(), number, only=modules)
    return run.analyze_file(existing(target), only=modules, number=kernel)


def root_in_place(session: Session, number: int) -> Subject | None:
    """The root's own memory when the incident is of this root's end, and is still to be seen."""
    from adeos.peers import sees_root
    from cli.session import in_vnode
    from crashdump import root
    from crashdump.capture import boot_id
    from crashdump.incident import DumpState

    record = session.store().get(number)
    held = record.vnode == root.VNODE and record.dump.state is DumpState.HELD
    if not held or record.dump.boot_id != boot_id():
        return None
    if not (in_vnode() or session.machine_factory is not None):
        return None
    machine = session.machine()
    if not sees_root(machine):
        return None
    return root.subject(machine, root.look(machine), record.reason)


def existing(target: str) -> Path:
    """The file of that name."""
    path = Path(target)
    try:
        there = path.is_file()
    except (OSError, ValueError):  # too long, or not a name any file can have
        there = False
    if not there:
        raise NotFound(f"{target}: no such file (an incident is named by its number)")
    return path


def list_kernels(session: Session, target: str) -> None:
    """The kernels in a memory file, numbered as --kernel counts them."""
    from crashdump.analysis.run import kernels

    if is_number(target):
        raise click.UsageError("--kernels goes with a file: an incident is one kernel's")
    found = [
        {
            "number": number,
            "release": kernel.release,
            "build_id": kernel.build_id,
            "phys_base": kernel.phys_base,
            "kaslr_offset": kernel.kaslr_offset,
        }
        for number, kernel in enumerate(kernels(existing(target)))
    ]
    if session.json:
        output.write_json(found)
        return
    rows = [
        (str(one["number"]), str(one["release"]), f"{one['phys_base']:#x}", str(one["build_id"]))
        for one in found
    ]
    headers = ("N", "RELEASE", "PHYS BASE", "BUILD ID")
    output.write(output.table(headers, rows, right=frozenset("N")))


def write_html(session: Session, report: Report, out: str) -> None:
    """The redacted report as HTML to a file of mode 0600, all of it or nothing."""
    from crashdump.analysis import html
    from crashdump.analysis.redact import redacted
    from crashdump.files import replace_file

    text = html.render(redacted(report))
    if out == STDOUT:
        if session.json:
            raise CliError("--html - and --json both want stdout; name a file for the HTML")
        output.write(text)
        return
    path = Path(out)
    if path.is_dir():
        raise CliError(f"{out}: is a directory; name a file")
    replace_file(path, text.encode(), sync=False)
    if not session.quiet:
        output.note(f"wrote {path}")

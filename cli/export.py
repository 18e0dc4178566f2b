# SPDX-License-Identifier: GPL-2.0-or-later
"""export: an incident's dump as ELF, kdump-compressed or raw, verified by reading it back."""

from __future__ import annotations

from pathlib import Path

import click

from cli import output
from cli.errors import CliError
from cli.session import Session
from cli.store import dump_path
from cli.verb import INCIDENT, Place, dry_run_option, verb

FORMATS = ("elf", "kdump", "raw")


@verb(
    "export",
    place=Place.EITHER,
    examples=[
        "vnode-debug export 3 --format kdump              incident-3.kdump, the smallest",
        "vnode-debug export 3 --format elf --level 0      nothing left out",
        "vnode-debug export 3 --format raw -o ram.raw",
        "vnode-debug export 3 --format elf --dry-run      prints the makedumpfile line",
    ],
)
@click.argument("incident", type=INCIDENT, metavar="INCIDENT")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="Of the file.")
@click.option(
    "--level",
    type=click.IntRange(0, 31),
    default=31,
    show_default=True,
    help="makedumpfile's dump level: the pages to leave out (elf and kdump).",
)
@click.option("-o", "--output", "out", metavar="FILE", help="[default: incident-INCIDENT.FORMAT]")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@dry_run_option
def command(
    session: Session,
    incident: int,
    kind: str,
    level: int,
    out: str | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Write an incident's dump in another format."""
    from crashdump import export

    source = dump_path(session, incident)
    target = Path(out or f"incident-{incident}.{kind}")
    chosen = export.Format(kind)
    if target.exists() and (not force or not target.is_file()):
        raise CliError(f"{target}: is there already; name another file, or use --force")
    if not target.absolute().parent.is_dir():
        raise CliError(f"{target}: its directory does not exist; make it first")
    if dry_run:
        words = export.command(source, target, chosen, level)
        line = f"write {target} as raw memory" if kind == "raw" else " ".join(words)
        output.write_json({"plan": line}) if session.json else output.write(output.clean(line))
        return
    done = export.export(source, target, chosen, level=level)
    if session.json:
        output.write_json({**done._asdict(), "path": str(done.path)})
        return
    output.write(output.clean(str(done.path)))
    if not session.quiet:
        output.note(
            f"{output.size(done.stored)} in {output.duration(done.seconds)}; read back: "
            f"{done.tasks} tasks, {done.pages} pages compared"
        )

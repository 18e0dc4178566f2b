# SPDX-License-Identifier: GPL-2.0-or-later
"""config: what concerns the config file itself."""

from __future__ import annotations

from pathlib import Path

import click

from cli import output
from cli.errors import ExitCode
from cli.session import Session
from cli.verb import Place, VerbGroup, verb


@click.group("config", cls=VerbGroup)
def command() -> None:
    """Check the config file."""


command.examples = ("vnode-debug config check",)


@verb(
    "check",
    place=lambda given: Place.HERE if given["file"] else Place.EITHER,
    examples=["vnode-debug config check", "vnode-debug config check ./vnodes.toml --json"],
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
def check(session: Session, file: Path | None) -> int:
    """Say every mistake of a config file."""
    from watchdog import config as configs
    from watchdog import paths
    from watchdog.errors import ConfigError

    path = (file or paths.config_file()).absolute()
    try:
        found = configs.load(path)
    except ConfigError as error:
        if not session.json:
            raise
        mistakes = [mistake._asdict() for mistake in error.mistakes]
        output.write_json({"file": str(path), "vnodes": 0, "mistakes": mistakes})
        return ExitCode.CONFIG
    if session.json:
        output.write_json({"file": str(path), "vnodes": len(found.vnode), "mistakes": []})
    elif not session.quiet:
        output.write(output.one_line(f"{path}: {len(found.vnode)} vnode(s), no mistakes"))
    return ExitCode.DONE


command.add_command(check)

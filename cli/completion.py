# SPDX-License-Identifier: GPL-2.0-or-later
"""completion: the shell's completion script, and the live vnode names it offers."""

from __future__ import annotations

import click

from cli import output
from cli.session import Session
from cli.verb import Place, verb

FAR_SECONDS = 6.0
"""How long a Tab key may wait for the box, where Python starts 12 times slower."""


@verb(
    "completion",
    place=Place.HERE,
    json=False,
    examples=[
        "source <(vnode-debug completion bash)     for this shell",
        "vnode-debug completion bash > ~/.local/share/bash-completion/completions/vnode-debug",
    ],
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def command(_session: Session, shell: str) -> None:
    """Print the shell's completion script."""
    from click.shell_completion import get_completion_class

    from cli.main import COMPLETE, PROGRAM, overview

    kind = get_completion_class(shell)
    assert kind is not None  # click knows the three shells of the argument's choice
    output.write(kind(overview, {}, PROGRAM, COMPLETE).source())


def live_vnodes(session: Session) -> list[tuple[str, str]]:
    """(id or name, state) of each vnode; [] when they cannot be had quickly."""
    import json

    from cli import observe

    try:
        target = session.elsewhere(required=True)
        if target is None:
            snapshot = observe.take(session.machine())
            rows = [row.as_dict() for row in observe.describe(snapshot, snapshot)]
        else:
            rows = json.loads(target.capture(["status", "--json"], FAR_SECONDS))
        vnodes = [(row["id"], row["name"], row["state"]) for row in rows if row["id"]]
        return [(str(word), str(state)) for id_, name, state in vnodes for word in (name, id_)]
    except Exception:  # a Tab key shows no errors
        return []

# SPDX-License-Identifier: GPL-2.0-or-later
"""slots: the images a vnode may be started from; read from the state directory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cli import output
from cli.errors import CliError, NotFound
from cli.session import Session
from cli.verb import VNODE, Place, verb

if TYPE_CHECKING:
    from kexec_restart.slots import Slots
    from watchdog.shelf import Shelf

HEADERS = ("VNODE", "SLOT", "HEALTH", "TRIES", "", "SHA256", "STAGED", "KERNEL", "WHY")
COLOUR = {"good": "green", "bad": "red", "indeterminate": "yellow"}


@verb(
    "slots",
    place=Place.EITHER,
    examples=["vnode-debug slots", "vnode-debug slots web --json"],
)
@click.argument("vnode", type=VNODE, metavar="[VNODE]", required=False)
def command(session: Session, vnode: str | None) -> None:
    """Show the images that vnodes start from."""
    from kexec_restart.slots import NAMES, describe
    from watchdog import paths
    from watchdog.shelf import Shelf

    shelf = Shelf(paths.state_dir() / "slots")
    everyone = [(number, load(shelf, number)) for number in shelf.vnodes()]
    found = [(n, slots) for n, slots in everyone if vnode in (None, str(n), slots.name)]
    if vnode is not None and not found:
        raise NotFound(f"there are no slots of a vnode {vnode}; 'vnode-debug slots' lists all")
    if session.json:
        output.write_json(
            [{"vnode": number, "name": slots.name, **describe(slots)} for number, slots in found]
        )
    elif found:
        rows = [cells(number, slots, name) for number, slots in found for name in NAMES]
        right = frozenset({"TRIES"})
        output.write(output.table(HEADERS, rows, right=right, colour=COLOUR))
    elif not session.quiet:
        output.note("no slots: no daemon has run here")


def load(shelf: Shelf, number: int) -> Slots:
    """A vnode's slots; CliError when they cannot be read."""
    from kexec_restart.slots import Slots

    try:
        return shelf.load(number) or Slots()
    except ValueError as error:
        raise CliError(
            f"{shelf.directory}/{number}.json cannot be read ({error}); the daemon, when started"
            " anew, begins it anew"
        ) from None


def cells(number: int, slots: Slots, name: str) -> tuple[str, ...]:
    """A slot's row."""
    from kexec_restart.slots import Health, choose

    slot = slots.get(name)
    empty = slot.health is Health.EMPTY
    words = [
        word
        for word, true in (("runs", slots.running == name), ("next", choose(slots) == name))
        if true
    ]
    return (
        f"{number} {slots.name}",
        name,
        str(slot.health),
        str(slot.tries) if slot.health is Health.INDETERMINATE else "-",
        " ".join(words),
        slot.spec.kernel_sha256[:12] or "-",
        "-" if empty else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(slot.staged)),
        slot.spec.kernel or "-",
        slot.why or "-",
    )

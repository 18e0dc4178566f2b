# SPDX-License-Identifier: GPL-2.0-or-later
"""images: the images of frozen vnodes; only the daemon knows them."""

from __future__ import annotations

from typing import Any

import click

from cli import observe, output
from cli.session import Session
from cli.verb import VNODE, verb

HEADERS = ("VNODE", "ROLE", "REGION", "IMAGE", "SIZE", "AGE", "CHECKED")
RIGHT = frozenset({"SIZE", "AGE"})


@verb(
    "images",
    examples=[
        "vnode-debug images",
        "vnode-debug images 2 --json | jq '.[].age_s'",
    ],
)
@click.argument("vnode", type=VNODE, required=False)
def command(session: Session, vnode: str | None) -> None:
    """List the images that vnodes are resumed from.

    Roles: the vnode runs in the region of the image; another one stands by in it, to be resumed at
    once; or the region waits, as a dump that is being written, to be filled from the image.
    """
    which = {} if vnode is None else {"vnode": observe.find(session.machine(), vnode).id}
    found = session.client().call("images", **which)["images"]
    if session.json:
        output.write_json(found)
        return
    output.write(output.table(HEADERS, [_cells(one) for one in found], right=RIGHT))
    if not found and not session.quiet:
        output.note("no image is kept; 'vnode-debug freeze VNODE' makes one")


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{one['vnode']} {output.clean(str(one['name']))}",
        str(one["role"]),
        str(one["region"]),
        str(one["image"]),
        output.size(int(one["bytes"])),
        output.duration(float(one["age_s"])),
        "yes" if one["checked"] else "not since its use",
    )


def describe(one: dict[str, Any]) -> str:
    """An image in words."""
    age = output.duration(float(one["age_s"]))
    return f"{one['role']} at {one['region']}, image of {output.size(int(one['bytes']))}, {age} old"

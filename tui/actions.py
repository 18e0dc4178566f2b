# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be done to a vnode, as data; and what else a deed reaches: its blast radius.

Most are a verb of the daemon's, which decides whether it is done.  The others hand the terminal to
another program of this toolkit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from adeos.units import size
from tui.look import ALIVE, LAYERS, Look, Vnode

NONE: Mapping[str, Any] = MappingProxyType({})
SLOW: Mapping[str, Any] = MappingProxyType({"timeout": 3600.0})
"""Seconds that the daemon may take for what reads or writes files."""


class Reach(Enum):
    """How far a deed reaches."""

    LOOKS = "looks"
    """It changes nothing and is done at once, also with --readonly."""
    PREPARES = "prepares"
    """Nothing runs otherwise now; the next start does."""
    PAUSES = "pauses"
    """The vnode may stand still for a while."""
    STARTS = "starts"
    """A kernel begins to run."""
    ENDS = "ends"
    """The kernel, and all that runs on it, ends."""


class Action(NamedTuple):
    """One deed."""

    id: str
    title: str
    reach: Reach
    verb: str = ""
    """Of the daemon; "" when it is a program for the terminal."""
    arguments: Mapping[str, Any] = NONE
    program: tuple[str, ...] = ()
    """A verb of vnode-debug with its options; the vnode's id is added."""
    readonly: tuple[str, ...] = ()
    """What is run instead with --readonly."""


ACTIONS: dict[str, Action] = {
    action.id: action
    for action in (
        Action("attach", "gdb on", Reach.LOOKS, program=("attach", "--read-only")),
        Action("attach-stop", "stop, with gdb on,", Reach.PAUSES, program=("attach", "--stop")),
        Action("drgn", "drgn on", Reach.LOOKS, program=("drgn",)),
        Action(
            "console",
            "the console of",
            Reach.LOOKS,
            program=("console",),
            readonly=("console", "--no-input"),
        ),
        Action("start", "start", Reach.STARTS, "start"),
        Action("stop", "stop", Reach.ENDS, "stop"),
        Action("restart", "restart", Reach.ENDS, "restart"),
        Action("fence", "fence", Reach.ENDS, "fence"),
        Action("stage", "stage an image for", Reach.PREPARES, "stage", SLOW),
        Action("dump", "dump", Reach.PAUSES, "dump", SLOW),
        Action("nmi", "send an NMI to", Reach.PAUSES, "registers"),
        Action("panic", "panic", Reach.ENDS, "inject", MappingProxyType({"kind": "panic"})),
    )
}


def needs_answer(action: Action) -> bool:
    """Whether it is confirmed first, and forbidden by --readonly."""
    return action.reach is not Reach.LOOKS


def blast_radius(action: Action, vnode: Vnode, look: Look) -> list[str]:
    """What a deed reaches, a line each, worst first."""
    return list(_reached(action, vnode, look))


def _reached(action: Action, vnode: Vnode, look: Look) -> Iterator[str]:
    row = vnode.row
    alive = row.state in ALIVE
    if action.reach is Reach.ENDS and alive:
        yield f"ends the kernel of vnode {row.id} ({row.name}) and every program on it"
    elif action.reach is Reach.PREPARES:
        yield "the kernel, initrd and command line of its config are read into its free slot"
        yield "its next start takes them; this one is not touched"
    elif action.reach is Reach.STARTS:
        yield f"a kernel runs on CPU {_list(row.cpus)} with {size(row.memory)} of memory"
    elif action.reach is Reach.PAUSES and alive:
        yield from _paused(action, vnode)
    else:
        yield f"vnode {row.id} is {row.state}: nothing runs on it"
    if vnode.holder and action.reach in (Reach.ENDS, Reach.PAUSES):
        yield f"process {vnode.holder} controls it now, with a debugger"
    if action.reach is Reach.ENDS:
        yield from _lookers(vnode, look)
        yield from _what_follows(action, vnode)


def _paused(action: Action, vnode: Vnode) -> Iterator[str]:
    row = vnode.row
    if action.id == "attach-stop":
        yield f"all CPUs of vnode {row.id} ({row.name}) stand still while gdb stops them"
        yield f"the watch waits: its deadlines ({_deadlines(vnode)}) are leased to gdb meanwhile"
    elif action.id == "nmi":
        yield f"each CPU of vnode {row.id} ({row.name}) is interrupted for some microseconds"
    else:
        yield f"vnode {row.id} ({row.name}) runs on; its CPUs are interrupted once by NMI"
        yield f"up to {size(row.memory)} are written to the root's disk"


def _lookers(vnode: Vnode, look: Look) -> Iterator[str]:
    """Vnodes that were granted this one lose sight of it."""
    for other in look.vnodes:
        if vnode.row.id in other.row.grants:
            who = f"vnode {other.row.id} ({other.row.name})"
            yield f"{who}, which may look at it, loses sight of it"


def _what_follows(action: Action, vnode: Vnode) -> Iterator[str]:
    if action.id == "stop":
        yield f"takes CPU {_list(vnode.row.cpus)} and {size(vnode.row.memory)} of memory from it"
        yield "it stays down until it is started again"
    elif action.id == "fence":
        yield "its CPUs stand still; its memory stays, for gdb, drgn, log and dump"
    elif action.id == "restart":
        yield f"it boots anew as incarnation {vnode.row.incarnation + 1}"
    else:
        yield "its policy decides what follows: a dump, a restart, quarantine"


def _deadlines(vnode: Vnode) -> str:
    pairs = zip(LAYERS, vnode.limits, strict=False)
    return ", ".join(f"{layer} {limit:g} s" for layer, limit in pairs if limit > 0) or "none"


def _list(cpus: tuple[int, ...]) -> str:
    return ", ".join(map(str, cpus)) or "-"

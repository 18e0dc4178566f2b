# SPDX-License-Identifier: GPL-2.0-or-later
"""boot: where the time of a vnode's last start went."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from adeos.bridge import Bridge
from adeos.errors import BridgeError
from cli import observe, output
from cli.errors import NotFound
from cli.memory import binding_of, vnode_kernel
from cli.session import Session
from cli.verb import verb, vnode_argument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from introspect.printk import LogRecord

AGENT = "vnode_agent: vnode "
INIT = "Run /init as init process"
PARTS = (
    ("unpack", "SIPI until the kernel's clock begins: decompression, first page tables"),
    ("kernel", "until it runs /init: everything that is built in"),
    ("agent", "until the agent is loaded"),
    ("user", "until user space beats"),
)


class Part(NamedTuple):
    """One part of a boot, milliseconds."""

    name: str
    ms: float
    what: str


@verb(
    "boot",
    examples=[
        "vnode-debug boot 2           unpack, kernel, agent, user: milliseconds of each",
        "vnode-debug boot 2 --json",
    ],
)
@vnode_argument
def command(session: Session, vnode: str) -> None:
    """Show where the time of a vnode's last start went."""
    machine = session.machine()
    status = observe.find(machine, vnode)
    binding = binding_of(machine, status)
    try:
        side = Bridge.open(machine, binding.region).vnode_side()
    except BridgeError as error:
        raise NotFound(f"vnode {vnode}: {error}") from None
    if side is None or not side.user_tsc:
        raise NotFound(f"vnode {vnode} ({status.name}): its user space has not come up yet")
    log = vnode_kernel(machine, status).log()
    khz = machine.info().tsc_khz
    agent, user = ((tsc - binding.start_tsc) / khz for tsc in (side.agent_tsc, side.user_tsc))
    found = parts(log, agent, user)
    if session.json:
        output.write_json([part._asdict() for part in found])
        return
    for part in found:
        output.write(f"{part.name:7} {part.ms:8.1f} ms  {part.what}")
    output.write(f"{'all':7} {sum(part.ms for part in found):8.1f} ms")


def parts(log: Iterable[LogRecord], agent_ms: float, user_ms: float) -> list[Part]:
    """The parts, from a log and from how long after the SIPI agent and user space spoke.

    The agent's own record tells when the kernel's clock began.  Nothing of it is trusted: parts
    are never negative, and what cannot be told apart is one part.
    """
    stamps: dict[str, float] = {}
    for record in log:
        for said in (INIT, AGENT):
            if record.text.startswith(said):
                stamps.setdefault(said, record.ts_ns / 1e6)
    marks = [agent_ms, user_ms]
    if AGENT in stamps and (zero := agent_ms - stamps[AGENT]) >= 0:
        init = zero + stamps.get(INIT, stamps[AGENT])
        marks = [zero, init, *marks]
    known = PARTS[-len(marks) :]
    out, before = [], 0.0
    for (name, what), mark in zip(known, marks, strict=True):
        out.append(Part(name, max(mark - before, 0.0), what))
        before = max(mark, before)
    return out

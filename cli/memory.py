# SPDX-License-Identifier: GPL-2.0-or-later
"""A vnode's memory as introspect wants it, and the kernel in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adeos import abi
from adeos.bridge import Bridge
from adeos.errors import BridgeError
from adeos.machine import Range
from cli.errors import NotFound

if TYPE_CHECKING:
    from adeos.machine import Machine
    from introspect.kernel import Kernel
    from introspect.memory import BufferMemory


def region_of(status: abi.Status) -> Range:
    """The vnode's region; NotFound when it has none now."""
    if not status.region_size:
        raise NotFound(
            f"vnode {status.id} ({status.name}) is {status.state.name.lower()} and has no memory; "
            "what it left is in its incidents: vnode-debug incidents"
        )
    return Range(status.region_base, status.region_size)


def vnode_memory(machine: Machine, status: abi.Status) -> BufferMemory:
    """Region and low slot, mapped read-only; read anew at each access."""
    from introspect.memory import BufferMemory

    region = region_of(status)
    parts = [(region.base, machine.view(region.base, region.size))]
    if status.slot_size:
        parts.append((status.slot_base, machine.view(status.slot_base, status.slot_size)))
    return BufferMemory(parts)


def vnode_kernel(machine: Machine, status: abi.Status) -> Kernel:
    """The kernel in a vnode's memory, alive or dead; IntrospectError when there is none."""
    from introspect.errors import IntrospectError
    from introspect.kernel import Kernel

    memory = vnode_memory(machine, status)
    hint = vmcoreinfo_hint(machine, status)
    if hint is not None:
        try:
            return Kernel.find(memory, vmcoreinfo_pa=hint, live=True)
        except IntrospectError:
            pass  # the vnode may say anything: look for it instead
    return Kernel.find(memory, live=True)


def vmcoreinfo_hint(machine: Machine, status: abi.Status) -> int | None:
    """Where the agent says that VMCOREINFO is, physical; None when it does not."""
    try:
        agent = Bridge.open(machine, region_of(status)).vnode_side()
    except BridgeError:
        return None
    return agent.vmcoreinfo_pa or None if agent is not None else None

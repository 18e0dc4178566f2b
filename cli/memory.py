# SPDX-License-Identifier: GPL-2.0-or-later
"""A vnode's memory as introspect wants it, and the kernel in it.

Asks the bridge for nothing but a hint, so that a vnode that scribbled over its
bridge is still read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adeos import abi
from adeos.bridge import Bridge
from adeos.errors import BridgeError
from cli.errors import CliError, NotFound

if TYPE_CHECKING:
    from adeos.machine import Binding, Machine
    from introspect.kernel import Kernel


class NoKernel(CliError):
    """There is no kernel in a vnode's memory, or none yet."""


def binding_of(machine: Machine, status: abi.Status) -> Binding:
    """What the vnode owns now; NotFound when it owns nothing."""
    binding = machine.query(status.id)
    if binding is None:
        raise NotFound(
            f"vnode {status.id} ({status.name}) is {status.state.name.lower()} and has no memory; "
            "what it left is in its incidents: vnode-debug incidents"
        )
    return binding


def vnode_kernel(machine: Machine, status: abi.Status) -> Kernel:
    """The kernel in a vnode's memory, alive or dead; read anew at each access.

    NotFound when it has no memory, NoKernel when nothing in it is a kernel.
    """
    from debugger.sources import memory_of
    from introspect.errors import IntrospectError
    from introspect.kernel import Kernel

    binding = binding_of(machine, status)
    memory = memory_of(machine, binding)
    hint = vmcoreinfo_hint(machine, binding)
    try:
        if hint is not None:
            return Kernel.find(memory, vmcoreinfo_pa=hint, live=True)
    except IntrospectError:
        pass  # the vnode may say anything: look for it instead
    try:
        return Kernel.find(memory, live=True)
    except IntrospectError as error:
        word = status.state.name.lower()
        raise NoKernel(f"vnode {status.id} ({status.name}), {word}: {error}") from None


def vmcoreinfo_hint(machine: Machine, binding: Binding) -> int | None:
    """Where the agent says that VMCOREINFO is, physical; None when it does not."""
    try:
        agent = Bridge.open(machine, binding.region).vnode_side()
    except BridgeError:
        return None
    return agent.vmcoreinfo_pa or None if agent is not None else None

# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes targets: of a vnode of this machine, of a memory image or a dump."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from adeos.abi import USER_REGS, VN_MAX_VNODES, LastState
from adeos.bridge import Bridge
from adeos.errors import BridgeError
from adeos.machine import Binding, Machine
from adeos.peers import Granted
from crashdump import root as roots
from debugger.control import RunControl
from debugger.cpus import BridgeCpus, DumpCpus, Hold, RootCpus
from debugger.errors import NothingThere
from debugger.registers import Values, of_frame, of_user_regs
from debugger.target import Identity, KernelTarget
from introspect.errors import IntrospectError
from introspect.kernel import Kernel
from introspect.lent import LentMemory
from introspect.memory import BufferMemory, PhysicalMemory, open_image

_MAX_CPUS = 512
_USER_REGS = struct.Struct(f"<{len(USER_REGS)}Q")
# QEMUCPUState, target/i386/arch_dump.c of QEMU: version and size, 18 general registers,
# 10 segments of 24 bytes, cr0-4, kernel_gs_base.
_QEMU_CONTROL = struct.Struct("<5QQ")
_QEMU_CONTROL_AT = 8 + 18 * 8 + 10 * 24


def vnode(
    machine: Machine,
    number: int,
    name: str,
    *,
    tasks: bool = True,
    open_writable: Callable[[], Machine] | None = None,
) -> KernelTarget:
    """A vnode, running or dead, through its memory and its bridge; nothing is stopped by that.

    With `tasks` those on no CPU are threads too.  `open_writable` opens the machine for run
    control once that is asked for; without it the vnode can only be watched.
    NothingThere when the vnode is not bound or has no kernel (yet).
    """
    binding = machine.query(number)
    if binding is None:
        raise NothingThere(f"vnode {number} ({name}) has no memory: start it first")
    memory = memory_of(machine, binding)
    bridge = Bridge.open(machine, binding.region)
    try:
        cpus = BridgeCpus(bridge, holder(machine, binding))
        note = _note(bridge)
    except BridgeError as error:
        raise NothingThere(f"vnode {number} ({name}): {error}") from None
    kernel = _kernel(memory, name, note=note, live=True)
    target = KernelTarget(Identity(number, name), kernel, cpus, tasks=tasks)
    if open_writable is not None:
        control = RunControl(open_writable, number, binding.region, bridge, kernel)
        target.controlled_by(control)
    return target


def root(machine: Machine, *, tasks: bool = True) -> KernelTarget:
    """The root's own kernel, alive or dead, from its successor; looked at, never stopped.

    NothingThere when this is no successor or nothing of the root's memory is a kernel.
    """
    try:
        now = roots.look(machine)
        kernel = roots.kernel(machine, now)
    except (roots.NoRoot, BridgeError) as error:
        raise NothingThere(str(error)) from None
    saved = {now.cpu: of_frame(now.frame)} if now.cpu is not None and now.frame else {}
    cpus = RootCpus(saved, _online(kernel, now.cpu), alive=now.last.state is LastState.ALIVE)
    # gdb takes process 0 for "any"
    identity = Identity(VN_MAX_VNODES, roots.NAME)
    return KernelTarget(identity, kernel, cpus, tasks=tasks)


def memory_of(machine: Machine, binding: Binding) -> BufferMemory:
    """A vnode's memory; one that was granted is no more once the grant or the incarnation ends."""
    parts = (binding.region, binding.slot)
    segments = [(part.base, machine.view(part.base, part.size)) for part in parts]
    if not isinstance(machine, Granted):
        return BufferMemory(segments)

    def valid() -> bool:
        now = machine.query(binding.vnode)
        return now is not None and _same(now, binding)

    return LentMemory(segments, valid)


def holder(machine: Machine, binding: Binding) -> Callable[[], Hold]:
    """What tells, at any time, what has become of a vnode that was `binding`."""
    granted = isinstance(machine, Granted)

    def hold() -> Hold:
        now = machine.query(binding.vnode)
        if granted and (now is None or not _same(now, binding)):
            return Hold.TAKEN if now is None else Hold.AGAIN
        if now is None or now.region != binding.region:
            return Hold.MOVED
        return Hold.STARTED if now.started else Hold.PARKED

    return hold


def _same(now: Binding, then: Binding) -> bool:
    """Whether a vnode has the memory it had, and was not started again."""
    return (now.region, now.slot, now.start_tsc) == (then.region, then.slot, then.start_tsc)


def _note(bridge: Bridge) -> int | None:
    """Where the agent says VMCOREINFO lies; None: to be searched."""
    try:
        side = bridge.vnode_side()
    except BridgeError:
        return None
    return side.vmcoreinfo_pa or None if side is not None else None


def _kernel(
    memory: PhysicalMemory, name: str, *, note: int | None = None, live: bool = False
) -> Kernel:
    if note is not None:
        with suppress(IntrospectError):  # a wrong word of the vnode: look for ourselves
            return Kernel.find(memory, vmcoreinfo_pa=note, live=live)
    try:
        return Kernel.find(memory, live=live)
    except IntrospectError as error:
        raise NothingThere(f"{name}: {error}") from None


def dump(path: Path, number: int = 1, *, tasks: bool = True) -> KernelTarget:
    """A memory image or vmcore in a file, with the registers it holds.

    `number` is its inferior in gdb.  With `tasks` those on no CPU are threads too.
    NothingThere when it is no memory image or there is no kernel in it.
    """
    try:
        memory = open_image(path)
    except IntrospectError as error:
        raise NothingThere(str(error)) from None
    kernel = _kernel(memory, str(path))
    saved = _registers(memory)
    return KernelTarget(
        Identity(number, path.name),
        kernel,
        DumpCpus(saved, max(len(saved), _present(kernel))),
        tasks=tasks,
    )


def _registers(memory: PhysicalMemory) -> dict[int, Values]:
    """Registers by CPU: the n-th PRSTATUS note is CPU n's, and the n-th QEMU note completes it."""
    control = [
        _QEMU_CONTROL.unpack_from(note.data, _QEMU_CONTROL_AT)
        for note in getattr(memory, "notes", ())
        if note.name == b"QEMU" and len(note.data) >= _QEMU_CONTROL_AT + _QEMU_CONTROL.size
    ]
    saved: dict[int, Values] = {}
    for cpu, raw in enumerate(getattr(memory, "registers", ())):
        if not any(raw):
            continue  # the writer had none for this CPU
        values = of_user_regs(_USER_REGS.unpack(raw))
        if cpu < len(control):
            cr0, _, cr2, cr3, cr4, k_gs_base = control[cpu]
            values |= {"cr0": cr0, "cr2": cr2, "cr3": cr3, "cr4": cr4, "k_gs_base": k_gs_base}
        saved[cpu] = values
    return saved


def _online(kernel: Kernel, panicked: int | None) -> int:
    """One more than the root's highest CPU: those present beyond are the vnodes'."""
    try:
        online = kernel.cpus("online")
    except IntrospectError:
        online = []
    return min(1 + max([0, *online, panicked or 0]), _MAX_CPUS)


def _present(kernel: Kernel) -> int:
    """CPUs that were there, as the kernel counted them; 1 when that cannot be read.

    Not those online: a panic takes all but one offline.
    """
    try:
        count = min(kernel.u32(kernel.symbols.address("nr_cpu_ids")), _MAX_CPUS)
        mask = kernel.read(kernel.symbols.address("__cpu_present_mask"), (count + 7) // 8)
    except IntrospectError:
        return 1
    bits = int.from_bytes(mask, "little") & (1 << count) - 1
    return max(bits.bit_count(), 1)

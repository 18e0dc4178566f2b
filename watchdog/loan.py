# SPDX-License-Identifier: GPL-2.0-or-later
"""What the running root lends to its vnodes: CPUs and memory blocks that were not reserved at boot.

    machine = take(config)        # offline by now; kmb.ko can be loaded with it
    give_back()                   # online again

The loan is on record before the first block goes offline, so what a killed process took is
found by the next one.  Both may be called again at any time.  `module.py` holds the lock.
"""

from __future__ import annotations

import time

import msgspec

from adeos import abi
from adeos.errors import MachineMissing
from adeos.hotplug import Block, Hotplug, stretches
from adeos.units import size
from crashdump.files import replace_file
from watchdog import paths
from watchdog.config import Config, MachineConfig
from watchdog.errors import ModuleError
from watchdog.spans import parse_grant

LEFT = 128 << 20
"""What the root keeps of the memory that it says is available."""
SEARCH_S = 120.0
SLOTS = 8
"""Start-up slots of 64 KiB from 64 KiB on; the kernel's own start-up code is at the end."""


class Loan(msgspec.Struct):
    """On record: what is offline, or about to be."""

    cpus: list[int] = []
    blocks: list[Block] = []
    block_size: int = 0

    @property
    def memory(self) -> int:
        """Bytes."""
        return len(self.blocks) * self.block_size

    @property
    def words(self) -> str:
        """For people."""
        cpus = ",".join(map(str, sorted(self.cpus))) or "none"
        return f"CPUs {cpus}, {size(self.memory)} of memory"


def current() -> Loan | None:
    """What is lent now, None = nothing."""
    try:
        return msgspec.json.decode(paths.loan_record().read_bytes(), type=Loan)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ModuleError(
            f"{paths.loan_record()}: {error}; put CPUs and memory online by hand, then remove it"
        ) from None


def wanted(config: Config) -> tuple[list[int], list[int]]:
    """CPUs that vnodes are to have, and sizes of memory, a run of blocks each.

    [machine] says it; what it leaves out is what the vnodes need together.
    """
    machine = config.machine
    cpus = machine.cpus or {cpu for vnode in config.vnode for cpu in vnode.cpus}
    sizes = [span.size for span in machine.spans if span.base is None]
    if not machine.memory:
        sizes = [abi.VN_ROOT_SIZE + sum(vnode.span.size for vnode in config.vnode)]
    return sorted(cpus), sizes


def take(config: Config, hotplug: Hotplug | None = None) -> MachineConfig:
    """Take what is not reserved; the [machine] to load kmb.ko with.

    ModuleError or MachineMissing when it cannot be had; what was taken is to be given back then.
    """
    hotplug = hotplug or Hotplug()
    machine = config.machine
    cpus, sizes = wanted(config)
    taken = _Taking(hotplug)
    given = [text for text in machine.memory if parse_grant(text).base is not None]
    if sizes:
        given += taken.memory(sizes, [] if machine.memory else _apart(config))
    for cpu in cpus:
        taken.cpu(cpu)
    slots = min(sum(len(vnode.cpus) for vnode in config.vnode), SLOTS)
    low = machine.low or f"0x10000+{slots * abi.VN_SLOT_SIZE:#x}"
    return msgspec.structs.replace(machine, memory=tuple(given), cpus=tuple(cpus), low=low)


def _apart(config: Config) -> list[int]:
    """A run for each vnode, the first with the root bridge: where one run for all is not free."""
    if not 1 < len(config.vnode) <= abi.KMB_MAX_RANGES:
        return []
    sizes = [vnode.span.size for vnode in config.vnode]
    sizes[0] += abi.VN_ROOT_SIZE
    return sizes


class _Taking:
    """A loan that grows, on record before each step."""

    def __init__(self, hotplug: Hotplug) -> None:
        self.hotplug = hotplug
        self.loan = Loan()
        self.deadline = time.monotonic() + SEARCH_S
        self.best = 0
        self.why = "there are no more"

    def cpu(self, cpu: int) -> None:
        if not self.hotplug.cpu_online(cpu):
            return
        self.loan.cpus.append(cpu)
        _write(self.loan)
        self.hotplug.set_cpu(cpu, online=False)

    def memory(self, sizes: list[int], instead: list[int]) -> list[str]:
        """Runs of these sizes, else of those `instead`, as BASE+SIZE."""
        unit = self.loan.block_size = self.hotplug.block_size()
        need = sum(-(-one // unit) * unit for one in sizes)
        available = self.hotplug.available()
        if need + LEFT > available:
            spare = size(max(available - LEFT, 0))
            raise MachineMissing(
                f"the vnodes want {size(need)}, the root can spare {spare}",
                "give them less, or the machine more",
            )
        for some in (sizes, instead):
            runs = [self._run(-(-one // unit)) for one in some]
            if runs and all(runs):
                return [f"{run[-1].number * unit:#x}+{len(run) * unit:#x}" for run in runs]
            for run in runs:
                self._return(run)
        raise MachineMissing(
            f"no {size(need)} of the running root's memory can be freed: of blocks side by side"
            f" {size(self.best * unit)} went offline, then: {self.why}",
            "boot the root with movablecore=SIZE, or reserve memory with memmap=SIZE$BASE",
        )

    def _run(self, count: int) -> list[Block]:
        """So many neighbours, from the highest down; [] when there are none."""
        for stretch in stretches(self.hotplug.blocks(), count):
            run: list[Block] = []
            for left, block in zip(range(len(stretch), 0, -1), stretch, strict=True):
                if len(run) + left < count or time.monotonic() > self.deadline:
                    break
                self.loan.blocks.append(block)
                _write(self.loan)
                if why := self.hotplug.offline(block):
                    self.why = f"block {block.number}: {why}"
                    self._return([block, *run])
                    run = []
                    continue
                run.append(block)
                self.best = max(self.best, len(run))
                if len(run) == count:
                    return run
            self._return(run)
        return []

    def _return(self, blocks: list[Block]) -> None:
        for block in blocks:
            self.hotplug.online(block)
            self.loan.blocks.remove(block)
        _write(self.loan)


def _write(loan: Loan) -> None:
    paths.private_dir(paths.run_dir())
    replace_file(paths.loan_record(), msgspec.json.encode(loan), sync=False)


def give_back(hotplug: Hotplug | None = None) -> Loan:
    """Put online what is lent; what that was.  Tries all of it before it says what failed."""
    loan = current()
    if loan is None:
        return Loan()
    hotplug = hotplug or Hotplug()
    failed: list[MachineMissing] = []
    for cpu in loan.cpus:
        try:
            if not hotplug.cpu_online(cpu):
                hotplug.set_cpu(cpu, online=True)
        except MachineMissing as error:
            failed.append(error)
    for block in loan.blocks:
        try:
            hotplug.online(block)
        except MachineMissing as error:
            failed.append(error)
    if failed:
        raise failed[0]
    paths.loan_record().unlink()
    return loan

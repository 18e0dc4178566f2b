# SPDX-License-Identifier: GPL-2.0-or-later
"""The config file: TOML in, checked frozen structs out.

`load` finds all mistakes of a file, not only the first, and says of each
where it is and what to do.  It looks at the file and at the files it names,
never at the machine: CPUs and memory that the machine lacks are found when
a vnode is started.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from adeos.files import read_regular
from crashdump.quota import Limits
from kexec_restart import fast_boot
from watchdog import config_checks, toml_lines
from watchdog.errors import ConfigError, Mistake
from watchdog.spans import Span, parse_grant, parse_memory, parse_size
from watchdog.table_reader import Reader, read_table

FILE_MAX = 1 << 20

OnCrash = Literal["coredump-restart", "restart", "coredump-destroy", "destroy", "preserve"]
OnExit = Literal["destroy", "restart"]
Judge = Literal["fixed", "phi"]
Strategy = Literal["cold", "warm", "standby"]


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all tables share: immutable, keywords only, unknown keys refused."""


class Layer(Base, frozen=True):
    """Beats of one layer: how often, and after what silence it counts as dead."""

    period_ms: int = 10
    limit_ms: int = 500


class VnodeWatch(Base, frozen=True):
    """[vnode.watch].  Limits suit a machine whose watcher runs in real time."""

    irq: Layer = Layer(period_ms=10, limit_ms=500)
    sched: Layer = Layer(period_ms=20, limit_ms=1000)
    user: Layer = Layer(period_ms=100, limit_ms=3000)
    judge: Judge = "fixed"
    """`phi`: limits follow the beats, below the fixed ones."""
    phi: float = 8.0
    pause_ms: int = 50
    probe_ms: int = 1000
    boot_timeout_ms: int = 60_000
    agent: bool = True
    """False for a kernel without vnode_agent: it is judged by what its memory shows."""
    jiffies: Layer = Layer(period_ms=500, limit_ms=5000)
    stall_s: int = 30
    hung_s: int = 120
    """Without an agent, what makes it suspect: a CPU that switches no task, a task in state D."""

    @property
    def layers(self) -> tuple[Layer, Layer, Layer]:
        """In the order of abi.Layer."""
        return self.irq, self.sched, self.user

    @property
    def probe_lead_ms(self) -> int:
        """So long before its limit a silent CPU is probed: what is true is known at the limit."""
        return min(3 * self.irq.period_ms, self.irq.limit_ms // 4)


class Restart(Base, frozen=True):
    """[vnode.restart].

    Up to `intensity` restarts in `period_s` seconds go at once (after
    `delay_ms`); further ones wait `backoff_s`, doubling up to `backoff_max_s`;
    after `attempts` such waits the other slot is started, or the vnode is
    quarantined.  `healthy_s` seconds of running clear the account and make the
    image good; a new one has `tries` starts.  The time a capture takes is not
    counted.
    """

    on_crash: OnCrash = "coredump-restart"
    on_halt: OnExit = "destroy"
    on_reboot: OnExit = "restart"
    delay_ms: int = 0
    intensity: int = 5
    period_s: int = 60
    backoff_s: int = 10
    backoff_max_s: int = 300
    attempts: int = 5
    healthy_s: int = 600
    tries: int = 3
    strategy: Strategy = "cold"
    """How it is brought up again; any but `cold` needs a user space that runs vnode-ready."""
    resume_ms: int = 3000
    """A vnode that was resumed and does not beat within this is booted."""
    quick: int = 3
    quick_s: int = 60
    """So many failures in a row, each within `quick_s` of a resume, and it is booted."""
    fire_s: int = 0
    """kmb.ko restarts it by itself when no daemon has ticked for so long; 0: it does not."""


class GrantConfig(Base, frozen=True):
    """One of a vnode's `grants`: another vnode that it may look at, and control if so said."""

    vnode: int
    control: bool = False


class VnodeConfig(Base, frozen=True):
    """[[vnode]]: what it boots, where, and what to do with it."""

    id: int
    name: str
    kernel: str
    cpus: tuple[int, ...]
    memory: str
    initrd: str = ""
    cmdline: str = ""
    fast_boot: bool = False
    devices: tuple[str, ...] = ()
    autostart: bool = True
    inject: bool = False
    grants: tuple[GrantConfig, ...] = ()
    watch: VnodeWatch = VnodeWatch()
    restart: Restart = Restart()

    @property
    def words(self) -> str:
        """The user's part of the command line: `cmdline`, behind the words of `fast_boot`."""
        return self.words_with(self.cmdline)

    def words_with(self, cmdline: str) -> str:
        """The same with another `cmdline`."""
        return f"{fast_boot.CMDLINE} {cmdline}".strip() if self.fast_boot else cmdline

    @property
    def span(self) -> Span:
        """`memory` as numbers."""
        return parse_memory(self.memory)


class MachineConfig(Base, frozen=True):
    """[machine]: what kmb.ko is loaded with; empty when it is loaded otherwise.

    A memory without base, and what is left out, is taken from the running root (loan.py).
    """

    memory: tuple[str, ...] = ()
    low: str = ""
    cpus: tuple[int, ...] = ()
    module: str = ""
    successor: str = ""
    """The vnode, by name or id, that watches the root and outlives it."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """`memory` as numbers; one that is taken from the running root has no base."""
        return tuple(parse_grant(text) for text in self.memory)


class Watch(Base, frozen=True):
    """[watch]: the daemon's own pace."""

    period_ms: int = 10
    realtime: bool = True
    hold: bool = True  # keep a crashed region as the dump when a spare is free
    log: Literal["text", "json"] = "text"


class Dumps(Base, frozen=True):
    """[dumps]: how much of the disk dumps may take; 0: no limit."""

    count: int = 200
    bytes: str = "0"
    free: str = "256M"

    @property
    def limits(self) -> Limits:
        """In numbers."""
        return Limits(self.count, parse_size(self.bytes), parse_size(self.free))


class Hooks(Base, frozen=True):
    """[hooks]: programs that are run, each an argv."""

    on_incident: tuple[tuple[str, ...], ...] = ()
    timeout_s: int = 30


class Config(Base, frozen=True):
    """The whole file."""

    machine: MachineConfig = MachineConfig()
    watch: Watch = Watch()
    dumps: Dumps = Dumps()
    hooks: Hooks = Hooks()
    vnode: tuple[VnodeConfig, ...] = ()

    @property
    def successor(self) -> int:
        """Id of the vnode that succeeds the root, 0 = none."""
        found = self.find(self.machine.successor) if self.machine.successor else None
        return found.id if found is not None else 0

    def find(self, which: int | str) -> VnodeConfig | None:
        """The vnode of this id (number or digits) or name."""
        text = str(which)
        for vnode in self.vnode:
            if text in (str(vnode.id), vnode.name):
                return vnode
        return None


def parse(text: str, path: Path, *, files: bool = True) -> Config:
    """Check a config text; `path` is for messages and relative file names.

    Raises ConfigError with every mistake.  `files`: look for the kernel and
    initrd files too.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column (\d+)\)", str(error))
        what = str(error).replace(at[0], f" (column {at[2]})") if at else str(error)
        raise ConfigError(path, [Mistake(int(at[1]) if at else None, "", what)]) from None
    reader = Reader(toml_lines.key_lines(text))
    config = read_table(reader, Config, table, (), None)
    config_checks.check(reader, config, path.parent, files=files)
    if reader.mistakes:
        raise ConfigError(path, _once(reader.mistakes))
    return _absolute(config, path.parent)


def load(path: Path, *, files: bool = True) -> Config:
    """Read and check a config file; ConfigError lists every mistake."""
    try:
        text = read_regular(path, FILE_MAX).decode()
    except FileNotFoundError:
        raise ConfigError(path, [Mistake(None, "", "no such file", "see docs/config.md")]) from None
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigError(path, [Mistake(None, "", str(what), "see docs/config.md")]) from None
    return parse(text, path, files=files)


def _absolute(config: Config, directory: Path) -> Config:
    """File names in a config are relative to the config's directory."""
    vnodes = tuple(
        msgspec.structs.replace(
            vnode,
            kernel=str((directory / vnode.kernel).absolute()),
            initrd=str((directory / vnode.initrd).absolute()) if vnode.initrd else "",
        )
        for vnode in config.vnode
    )
    machine = config.machine
    if machine.module:
        module = str((directory / machine.module).absolute())
        machine = msgspec.structs.replace(machine, module=module)
    return msgspec.structs.replace(config, machine=machine, vnode=vnodes)


def _once(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """One mistake a key: the first is the cause, later ones follow from it."""
    first: dict[tuple[int | None, str], Mistake] = {}
    for mistake in mistakes:
        first.setdefault((mistake.line, mistake.key), mistake)
    return list(first.values())

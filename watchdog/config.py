# SPDX-License-Identifier: GPL-2.0-or-later
"""The config file: TOML in, checked frozen structs out.

`load` finds all mistakes of a file, not only the first, and says of each
where it is and what to do.  It looks at the file and at the files it names,
never at the machine: CPUs and memory that the machine lacks are found when
a vnode is started.
"""

from __future__ import annotations

import errno
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from adeos.files import read_regular
from crashdump.quota import Limits
from kexec_restart import fast_boot
from watchdog import toml_lines
from watchdog.errors import ConfigError, Mistake
from watchdog.table_reader import Reader, read_table

FILE_MAX = 1 << 20
MAX_VNODES = 32  # VN_MAX_VNODES
MAX_CPUS = 16  # VN_MAX_CPUS
MAX_GRANTS = 8  # VN_MAX_GRANTS
REGION_ALIGN = 0x200000  # VN_REGION_ALIGN
REGION_MIN = 0x4000000  # VN_REGION_MIN
LOW_MIN, LOW_END = 0x10000, 0xA0000  # of adeos/kmb/memory.c
CMDLINE_MAX = 2047  # COMMAND_LINE_SIZE of x86 (arch/x86/include/asm/setup.h) less the NUL

OnCrash = Literal["coredump-restart", "restart", "coredump-destroy", "destroy", "preserve"]
OnExit = Literal["destroy", "restart"]
Judge = Literal["fixed", "phi"]
Strategy = Literal["cold", "warm", "standby"]


class Span(NamedTuple):
    """A range of physical memory, bytes; `base` is None where the pool chooses."""

    size: int
    base: int | None


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


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(0x[0-9a-fA-F]{1,16}|[0-9]{1,12})([KMG]?)", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of "256M", "1G", "0x40000"; ValueError otherwise."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f'"{text}" is no size')
    return int(found[1], 0 if found[1].startswith("0x") else 10) * _UNITS[found[2]]


def parse_memory(text: str) -> Span:
    """A vnode's memory: "256M" or "256M@0x140000000"."""
    size, at, base = text.partition("@")
    return Span(parse_size(size), parse_size(base) if at else None)


def parse_range(text: str) -> Span:
    """Machine memory: "BASE+SIZE"."""
    base, plus, size = text.partition("+")
    if not plus:
        raise ValueError(f'"{text}" is no BASE+SIZE')
    return Span(parse_size(size), parse_size(base))


def parse_grant(text: str) -> Span:
    """Memory for vnodes: "BASE+SIZE", or "SIZE" where it is taken from the running root."""
    return parse_range(text) if "+" in text else Span(parse_size(text), None)


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
    _check_machine(reader, config.machine, path.parent)
    _check_watch(reader, config.watch)
    _check_dumps(reader, config.dumps)
    _check_hooks(reader, config.hooks)
    for index, vnode in enumerate(config.vnode):
        _check_vnode(reader, vnode, ("vnode", index), config.machine)
        if files:
            _check_files(reader, vnode, ("vnode", index), path.parent)
    _check_between(reader, config)
    _check_grants(reader, config)
    _check_successor(reader, config)
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


def _number(reader: Reader, path: toml_lines.Path, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        reader.mistake(path, f"{value} is out of range", f"give {low}..{high}")


def _check_machine(reader: Reader, machine: MachineConfig, directory: Path) -> None:
    texts: list[tuple[toml_lines.Path, str]] = [
        (("machine", "memory"), text) for text in machine.memory
    ]
    if machine.low:
        texts.append((("machine", "low"), machine.low))
    seen: list[tuple[str, Span]] = []
    for path, text in texts:
        try:
            span = parse_range(text) if path[-1] == "low" else parse_grant(text)
        except ValueError as error:
            reader.mistake(path, str(error), 'write "0x20000000+0x20000000" (base+size)')
            continue
        for other_text, other in seen:
            if _overlap(span, other):
                reader.mistake(path, f'"{text}" overlaps "{other_text}"', "make them disjoint")
        seen.append((text, span))
        if span.size % 4096 or (span.base or 0) % 4096 or not span.size:
            reader.mistake(path, f'"{text}" is empty or not in whole 4 KiB pages', "round it")
        if path[-1] == "low" and not LOW_MIN <= (span.base or 0) <= LOW_END - span.size:
            what = f'"{text}" is not within {LOW_MIN:#x}..{LOW_END:#x}'
            reader.mistake(path, what, "low slots live there")
    _check_cpus(reader, ("machine", "cpus"), machine.cpus)
    module = directory / machine.module
    if machine.module and not module.is_file():
        reader.mistake(("machine", "module"), f"no file {module}", "build it: script/modules")


def _check_cpus(reader: Reader, path: toml_lines.Path, cpus: tuple[int, ...]) -> None:
    for cpu in sorted(set(cpus)):
        if cpus.count(cpu) > 1:
            reader.mistake(path, f"CPU {cpu} is named twice", "name each once")
        if cpu == 0:
            reader.mistake(path, "CPU 0 belongs to the root vnode", "use others")
        elif not 0 < cpu < 4096:
            reader.mistake(path, f"{cpu} is no CPU number")


def _check_watch(reader: Reader, watch: Watch) -> None:
    _number(reader, ("watch", "period_ms"), watch.period_ms, 1, 1000)


def _check_dumps(reader: Reader, dumps: Dumps) -> None:
    _number(reader, ("dumps", "count"), dumps.count, 0, 1_000_000)
    for key in ("bytes", "free"):
        try:
            parse_size(getattr(dumps, key))
        except ValueError as error:
            reader.mistake(("dumps", key), str(error), 'write "20G", or "0" for no limit')


def _check_hooks(reader: Reader, hooks: Hooks) -> None:
    _number(reader, ("hooks", "timeout_s"), hooks.timeout_s, 1, 3600)
    for argv in hooks.on_incident:
        if not argv or not argv[0].startswith("/"):
            what = f'"{argv[0]}" is no absolute file name' if argv else "an empty command"
            reader.mistake(("hooks", "on_incident"), what, 'write [["/usr/local/bin/page", "me"]]')
        elif "\0" in "".join(argv):
            reader.mistake(("hooks", "on_incident"), "a NUL in a command", "remove it")


_LIMITS: tuple[tuple[str, int, int], ...] = (
    ("delay_ms", 0, 3_600_000),
    ("intensity", 0, 1000),
    ("period_s", 1, 86_400),
    ("backoff_s", 0, 86_400),
    ("backoff_max_s", 0, 86_400),
    ("attempts", 0, 1000),
    ("healthy_s", 1, 86_400),
    ("tries", 1, 1000),
    ("resume_ms", 100, 600_000),
    ("quick", 1, 1000),
    ("quick_s", 1, 86_400),
    ("fire_s", 0, 3600),
)


def _check_vnode(
    reader: Reader, vnode: VnodeConfig, path: toml_lines.Path, machine: MachineConfig
) -> None:
    _number(reader, (*path, "id"), vnode.id, 1, MAX_VNODES - 1)
    if not _NAME.fullmatch(vnode.name):
        hint = "start with a letter, then letters, digits and _ . -, 31 at most"
        reader.mistake((*path, "name"), f'"{vnode.name}" is no vnode name', hint)
    elif vnode.name == "root":
        reader.mistake((*path, "name"), '"root" is the root vnode', "choose another")
    if not vnode.cpus:
        reader.mistake((*path, "cpus"), "no CPU", "name at least one, the boot CPU first")
    _number(reader, (*path, "cpus"), max(len(vnode.cpus), 1), 1, MAX_CPUS)
    _check_cpus(reader, (*path, "cpus"), vnode.cpus)
    for cpu in vnode.cpus:
        if machine.cpus and cpu not in machine.cpus:
            known = ", ".join(map(str, machine.cpus))
            reader.mistake((*path, "cpus"), f"CPU {cpu} is not in machine.cpus", f"it has {known}")
    _check_memory(reader, vnode, (*path, "memory"), machine)
    if len(vnode.cmdline.encode()) > CMDLINE_MAX or not vnode.cmdline.isprintable():
        reader.mistake((*path, "cmdline"), "too long or not printable", f"{CMDLINE_MAX} at most")
    for name in ("irq", "sched", "user", "jiffies"):
        layer: Layer = getattr(vnode.watch, name)
        where = (*path, "watch", name)
        _number(reader, (*where, "period_ms"), layer.period_ms, 1, 10_000)
        _number(reader, (*where, "limit_ms"), layer.limit_ms, 2 * layer.period_ms, 3_600_000)
    if not 1 <= vnode.watch.phi <= 100:
        reader.mistake((*path, "watch", "phi"), f"{vnode.watch.phi} is out of range", "give 1..100")
    _number(reader, (*path, "watch", "pause_ms"), vnode.watch.pause_ms, 0, 60_000)
    _number(reader, (*path, "watch", "probe_ms"), vnode.watch.probe_ms, 1, 60_000)
    _number(reader, (*path, "watch", "stall_s"), vnode.watch.stall_s, 0, 86_400)
    _number(reader, (*path, "watch", "hung_s"), vnode.watch.hung_s, 0, 86_400)
    boot = (*path, "watch", "boot_timeout_ms")
    _number(reader, boot, vnode.watch.boot_timeout_ms, 100, 3_600_000)
    for key, low, high in _LIMITS:
        _number(reader, (*path, "restart", key), getattr(vnode.restart, key), low, high)


def _check_memory(
    reader: Reader, vnode: VnodeConfig, path: toml_lines.Path, machine: MachineConfig
) -> None:
    try:
        span = vnode.span
        granted = machine.spans
    except ValueError as error:
        if vnode.memory:
            reader.mistake(path, str(error), 'write "256M" or "256M@0x140000000"')
        return
    if span.size < REGION_MIN or span.size % REGION_ALIGN or (span.base or 0) % REGION_ALIGN:
        reader.mistake(path, f'"{vnode.memory}" does not fit', "64M or more, in steps of 2M")
    elif granted and not any(_inside(span, grant) for grant in granted):
        have = ", ".join(machine.memory)
        reader.mistake(path, f'"{vnode.memory}" is not in machine.memory', f"it has {have}")


def _check_files(
    reader: Reader, vnode: VnodeConfig, path: toml_lines.Path, directory: Path
) -> None:
    for key, name in (("kernel", vnode.kernel), ("initrd", vnode.initrd)):
        if not name:
            continue
        file = directory / name
        try:
            os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            if not file.is_file():
                raise OSError(errno.EINVAL, "no regular file")
        except OSError as error:
            reader.mistake((*path, key), f"{file}: {error.strerror}", "give a readable file")


def _check_between(reader: Reader, config: Config) -> None:
    """What two vnodes must not share: id, name; and when both start by themselves CPU, memory."""
    for index, vnode in enumerate(config.vnode):
        path = ("vnode", index)
        for other in config.vnode[:index]:
            if vnode.id == other.id:
                reader.mistake((*path, "id"), f'{vnode.id} is taken by "{other.name}"', "renumber")
            if vnode.name == other.name:
                reader.mistake((*path, "name"), f'"{vnode.name}" is taken', "rename")
            if not (vnode.autostart and other.autostart):
                continue
            hint = "give each its own, or set autostart = false on one"
            for cpu in sorted(set(vnode.cpus) & set(other.cpus)):
                what = f'CPU {cpu} is also "{other.name}"\'s'
                reader.mistake((*path, "cpus"), what, hint)
            try:
                clash = _overlap(vnode.span, other.span)
            except ValueError:
                continue
            if clash:
                reader.mistake((*path, "memory"), f'overlaps "{other.name}"\'s memory', hint)


def _check_grants(reader: Reader, config: Config) -> None:
    known = {vnode.id for vnode in config.vnode}
    for index, vnode in enumerate(config.vnode):
        path = ("vnode", index, "grants")
        seen: set[int] = set()
        for place, grant in enumerate(vnode.grants):
            where = (*path, place, "vnode")
            if grant.vnode == vnode.id:
                reader.mistake(where, f"{grant.vnode} is the vnode itself", "name another")
            elif grant.vnode not in known:
                reader.mistake(where, f"there is no vnode {grant.vnode}", "name one by its id")
            elif grant.vnode in seen:
                reader.mistake(where, f"vnode {grant.vnode} is granted twice", "grant it once")
            seen.add(grant.vnode)
        if len(vnode.grants) > MAX_GRANTS:
            reader.mistake(path, f"{len(vnode.grants)} grants", f"{MAX_GRANTS} at most")


def _check_successor(reader: Reader, config: Config) -> None:
    name = config.machine.successor
    if name and config.find(name) is None:
        known = ", ".join(vnode.name for vnode in config.vnode) or "none"
        reader.mistake(("machine", "successor"), f'there is no vnode "{name}"', f"there is {known}")


def _overlap(a: Span, b: Span) -> bool:
    if a.base is None or b.base is None:
        return False
    return a.base < b.base + b.size and b.base < a.base + a.size


def _inside(span: Span, grant: Span) -> bool:
    if span.base is None:
        return span.size <= grant.size
    start = grant.base or 0
    return start <= span.base and span.base + span.size <= start + grant.size

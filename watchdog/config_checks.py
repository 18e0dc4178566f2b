# SPDX-License-Identifier: GPL-2.0-or-later
"""What a config must keep to beyond its types; each mistake goes to the reader."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from adeos import abi
from watchdog import toml_lines
from watchdog.spans import Span, inside, overlap, parse_grant, parse_range, parse_size
from watchdog.table_reader import Reader

if TYPE_CHECKING:
    from watchdog.config import Config, Dumps, Hooks, Layer, MachineConfig, VnodeConfig, Watch

LOW_MIN, LOW_END = 0x10000, 0xA0000  # of adeos/kmb/memory.c
CMDLINE_MAX = 2047  # COMMAND_LINE_SIZE of x86 (arch/x86/include/asm/setup.h) less the NUL
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}", re.ASCII)


def check(reader: Reader, config: Config, directory: Path, *, files: bool) -> None:
    """All of it; file names are relative to `directory`, `files`: whether they must exist."""
    _check_machine(reader, config.machine, directory)
    _check_watch(reader, config.watch)
    _check_dumps(reader, config.dumps)
    _check_hooks(reader, config.hooks)
    for index, vnode in enumerate(config.vnode):
        _check_vnode(reader, vnode, ("vnode", index), config.machine)
        if files:
            _check_files(reader, vnode, ("vnode", index), directory)
    _check_between(reader, config)
    _check_grants(reader, config)
    _check_successor(reader, config)


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
            if overlap(span, other):
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
    _number(reader, (*path, "id"), vnode.id, 1, abi.VN_MAX_VNODES - 1)
    if not _NAME.fullmatch(vnode.name):
        hint = "start with a letter, then letters, digits and _ . -, 31 at most"
        reader.mistake((*path, "name"), f'"{vnode.name}" is no vnode name', hint)
    elif vnode.name == "root":
        reader.mistake((*path, "name"), '"root" is the root vnode', "choose another")
    if not vnode.cpus:
        reader.mistake((*path, "cpus"), "no CPU", "name at least one, the boot CPU first")
    _number(reader, (*path, "cpus"), max(len(vnode.cpus), 1), 1, abi.VN_MAX_CPUS)
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
    align = abi.VN_REGION_ALIGN
    if span.size < abi.VN_REGION_MIN or span.size % align or (span.base or 0) % align:
        reader.mistake(path, f'"{vnode.memory}" does not fit', "64M or more, in steps of 2M")
    elif granted and not any(inside(span, grant) for grant in granted):
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
                clash = overlap(vnode.span, other.span)
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
        if len(vnode.grants) > abi.VN_MAX_GRANTS:
            reader.mistake(path, f"{len(vnode.grants)} grants", f"{abi.VN_MAX_GRANTS} at most")


def _check_successor(reader: Reader, config: Config) -> None:
    name = config.machine.successor
    if name and config.find(name) is None:
        known = ", ".join(vnode.name for vnode in config.vnode) or "none"
        reader.mistake(("machine", "successor"), f'there is no vnode "{name}"', f"there is {known}")

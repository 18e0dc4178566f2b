# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own words on its failures: events in a log, with titles and culprits.

Formats of 4.19 to 6.12 and what is known of later ones.  Sources:
arch/x86/kernel/dumpstack.c, arch/x86/mm/fault.c, lib/bug.c, kernel/watchdog.c,
kernel/hung_task.c, kernel/rcu/tree_stall.h, mm/slub.c, mm/kasan/report.c.
Pure: lines in, events out; any text at all may be in a log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from crashdump.analysis.title import culprit, normalise, plain

MAX_LINES = 50_000
MAX_LINE = 512
MAX_EVENTS = 200
EVENT_LINES = 300  # longest event: an OOM report, a slab's bytes
JOINED = 8  # lines between a message and the line of the same event that follows it
CLUSTER_NS = 10 * 10**9


class Kind(IntEnum):
    """What an event is; the greater, the nearer to the cause of death."""

    OOM = 1
    WARNING = 2
    STALL = 3  # soft lockup, RCU stall, hung task, hard lockup
    OOPS = 4  # an exception, BUG, or a checker's report
    PANIC = 5


class Line(NamedTuple):
    """One line of the log; `caller` is printk's, "" when the kernel keeps none."""

    ts_ns: int
    caller: str
    text: str


class Rip(NamedTuple):
    """Where an event says that it happened: function and offset, or an address alone."""

    function: str
    offset: int
    module: str
    address: int = 0


@dataclass
class Event:
    """A failure in the log: lines [start, end)."""

    kind: Kind
    rule: Rule
    match: re.Match[str]
    start: int
    end: int
    ts_ns: int
    caller: str
    cpu: int | None = None
    pid: int | None = None
    comm: str = ""
    rip: Rip | None = None
    code: str = ""
    trace: list[str] = field(default_factory=list)
    registers: dict[str, int] = field(default_factory=dict)
    blamed: dict[str, str] = field(default_factory=dict)  # slab: "Allocated", "Freed"
    detail: list[str] = field(default_factory=list)
    died: bool = False
    what: str = ""  # said before the head, more exactly than there

    @property
    def head(self) -> str:
        return self.match.string.strip()

    @property
    def culprit(self) -> str:
        """The function at fault as the log has it, "" when it names none."""
        named = self.match.groupdict().get("fn")
        if self.rule.freed and self.blamed:
            return plain(self.blamed.get("Freed") or self.blamed.get("Allocated", ""))
        names = [named] if named else []
        if self.rip and self.rip.function:
            names.append(self.rip.function)
        return culprit(names + self.trace)

    @property
    def title(self) -> str:
        return self.title_with(self.culprit)

    def title_with(self, function: str) -> str:
        """The title when `function` is the culprit."""
        groups = {k: normalise(v) for k, v in self.match.groupdict().items() if v is not None}
        groups["what"] = self.what or groups.get("what", "")
        access = next((m for text in self.detail if (m := _ACCESS.match(text))), None)
        groups["access"] = access[1].capitalize() + " " if access else ""
        groups["fn"] = plain(function)
        text = self.rule.title.format_map(_Blank(groups))
        if not function:
            text = re.sub(r",? (?:freed )?in $", "", text)
        return normalise(text)

    @property
    def generic(self) -> bool:
        """A panic that only ends another event."""
        return self.kind is Kind.PANIC and _GENERIC.search(self.head) is not None


class _Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


@dataclass(frozen=True)
class Rule:
    """`title` may name {fn}, {access}, groups of `pattern`; `then`: a head that belongs to it."""

    kind: Kind
    pattern: re.Pattern[str]
    title: str
    then: re.Pattern[str] | None = None
    freed: bool = False


def _rule(kind: Kind, pattern: str, title: str, then: str = "", freed: bool = False) -> Rule:
    return Rule(kind, re.compile(pattern), title, re.compile(then) if then else None, freed)


_DIE = r"\[#\d+\]"
_FN = r"(?P<fn>[A-Za-z_][\w.]{0,200})\+0x"
_PAGING = "BUG: unable to handle kernel paging request in {fn}"
_NULL = "BUG: unable to handle kernel NULL pointer dereference in {fn}"
RULES = (
    _rule(Kind.PANIC, r"Kernel panic - not syncing: Attempted to kill init!",
          "kernel panic: Attempted to kill init!"),
    _rule(Kind.PANIC, r"Kernel panic - not syncing: stack-protector: .*",
          "kernel panic: stack is corrupted in {fn}"),
    _rule(Kind.PANIC, r"Kernel panic - not syncing: (?P<what>.*)", "kernel panic: {what}"),
    _rule(Kind.PANIC, r"PANIC: double fault", "PANIC: double fault in {fn}", "double fault"),
    _rule(Kind.OOPS, r"BUG: (?:unable to handle )?kernel NULL pointer dereference", _NULL, _DIE),
    _rule(Kind.OOPS, r"BUG: unable to handle (?:page fault for address|kernel paging request)",
          _PAGING, _DIE),
    _rule(Kind.OOPS, r"unable to execute userspace code|kernel tried to execute NX-protected page",
          "BUG: kernel tried to execute data in {fn}", r"BUG: unable|BUG: kernel NULL|" + _DIE),
    _rule(Kind.OOPS, r"BUG: (?:\w+ )?stack guard page was hit",
          "BUG: stack guard page was hit in {fn}", _DIE),
    _rule(Kind.OOPS, r"list_(?:add|del) corruption|list_(?:add|del) double",
          "BUG: corrupted list in {fn}", r"kernel BUG at|WARNING: |" + _DIE),
    _rule(Kind.OOPS, r"usercopy: Kernel memory (?P<what>exposure|overwrite) attempt detected",
          "BUG: bad usercopy ({what}) in {fn}", r"kernel BUG at|" + _DIE),
    _rule(Kind.OOPS, r"kernel BUG at (?P<where>\S+?):\d+!", "kernel BUG in {fn}", _DIE),
    _rule(Kind.OOPS, r"BUG: KASAN: (?P<what>[\w -]+?) in " + _FN, "KASAN: {what} {access}in {fn}"),
    _rule(Kind.OOPS, r"BUG: KFENCE: (?P<what>[\w -]+?) in " + _FN, "KFENCE: {what} in {fn}"),
    _rule(Kind.OOPS, r"BUG: KMSAN: (?P<what>[\w -]+?) in " + _FN, "KMSAN: {what} in {fn}"),
    _rule(Kind.WARNING, r"BUG: KCSAN: (?P<what>[\w -]+?) in " + _FN, "KCSAN: {what} in {fn}"),
    _rule(Kind.WARNING, r"UBSAN: (?P<what>[\w -]+?) in \S+:\d+", "UBSAN: {what} in {fn}"),
    _rule(Kind.OOPS, r"BUG (?P<cache>[\w.:-]+)(?: \((?:Not tainted|Tainted)[^)]*\))?: (?P<what>.+)",
          "BUG {cache}: {what}, freed in {fn}", freed=True),
    _rule(Kind.OOPS, r"BUG: Bad page (?P<what>state|map|cache) in process",
          "BUG: Bad page {what} in {fn}"),
    _rule(Kind.OOPS, r"BUG: Bad rss-counter state", "BUG: Bad rss-counter state"),
    _rule(Kind.STALL, r"BUG: soft lockup - CPU#(?P<cpu>\d+) stuck", "BUG: soft lockup in {fn}"),
    _rule(Kind.STALL, r"BUG: workqueue lockup", "BUG: workqueue lockup"),
    _rule(Kind.STALL, r"(?:Watchdog detected|BUG:) hard LOCKUP on cpu (?P<cpu>\d+)",
          "BUG: hard lockup in {fn}"),
    _rule(Kind.STALL, r"INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stalls?",
          "INFO: rcu detected stall in {fn}"),
    _rule(Kind.STALL, r"INFO: task (?P<comm>.{1,16}):(?P<pid>\d+) (?:is )?blocked (?:for|in|on)",
          "INFO: task hung in {fn}"),
    _rule(Kind.WARNING, r"possible circular locking dependency|possible recursive locking"
          r"|inconsistent lock state|possible irq lock inversion",
          "possible deadlock in {fn}"),
    _rule(Kind.OOPS, r"BUG: spinlock (?P<what>[\w ]+) on", "BUG: spinlock {what} in {fn}"),
    _rule(Kind.WARNING, r"BUG: sleeping function called from invalid context",
          "BUG: sleeping function called from invalid context in {fn}"),
    _rule(Kind.WARNING, r"BUG: scheduling while atomic", "BUG: scheduling while atomic in {fn}"),
    _rule(Kind.WARNING, r"refcount_t: (?P<what>[^.]+)", "WARNING: refcount bug in {fn}",
          r"WARNING: "),
    _rule(Kind.WARNING, r"WARNING: (?:CPU: (?P<cpu>\d+) PID: \d+ )?(?:at )?\S+?:\d+ (?:at )?" + _FN,
          "WARNING in {fn}"),
    _rule(Kind.WARNING, r"WARNING: CPU: (?P<cpu>\d+) PID: \d+ at ", "WARNING in {fn}"),
    _rule(Kind.OOM, r"(?P<comm>.{1,16}) invoked oom-killer:", "INFO: out of memory in {fn}"),
    # any other exception: "general protection fault, probably for ...: 0000 [#1] PREEMPT SMP"
    _rule(Kind.OOPS, r"^(?:Oops: )?(?P<what>[a-zA-Z][a-zA-Z /-]{2,60}?)(?:, [^:]*|: maybe [^:]*)?"
          r"(?: 0x[0-9a-f]+)?: [0-9a-f]{4} " + _DIE, "{what} in {fn}"),
    _rule(Kind.OOPS, r"^(?P<what>BUG): (?P<text>.+)", "BUG: {text}", _DIE),
)  # fmt: skip
# One look that sorts out nearly every line of a log before the rules are tried
_ANY = re.compile(
    r"panic|PANIC|BUG|WARNING|INFO: (?:rcu|task)|LOCKUP|\[#\d|corruption|list_|usercopy|UBSAN"
    r"|oom-killer|refcount_t|possible|inconsistent lock|execute"
)
_GENERIC = re.compile(
    r"Fatal exception|hung_task: blocked tasks|softlockup: hung tasks|RCU Stall|panic_on_warn set"
    r"|panic_on_taint set|[Hh]ard LOCKUP|kill the idle|kill init|Oops|KASAN: panic|KFENCE: panic"
)
# 6.12's SLUB says what is wrong, then "BUG kmalloc-64: Object corrupt"
_OVERWRITTEN = re.compile(r"\[([A-Z][\w ]{2,30} overwritten)\] 0x")
_ACCESS = re.compile(r"(Read|Write) of size \d+ at")
_SYMBOL = r"([A-Za-z_][\w.]{0,200})\+(0x[0-9a-f]{1,8})/0x[0-9a-f]{1,8}(?: \[([\w-]+)[^\]]*\])?"
_RIP = re.compile(rf"\bE?R?IP: ([0-9a-f]{{4}}):(?:\[<[0-9a-f]+>\] )?(?:{_SYMBOL}|(0x[0-9a-f]+))")
_OLD_IP = re.compile(rf"^IP: (?:\[<[0-9a-f]+>\] )?{_SYMBOL}")
_FRAME = re.compile(rf"^\s*(\? )?(?:\[<[0-9a-fp_()]+>\] )?(\? )?{_SYMBOL}\s*$")
_CPU = re.compile(
    r"\bCPU: (\d{1,5}) (?:UID: \d+ )?PID: (\d{1,9}) Comm: (.{1,16}?) (?:Not t|T)ainted"
)
_REGISTER = re.compile(r"\b(R[A-Z]{2}|R\d\d|RSP|EFLAGS|CR2): (?:[0-9a-f]{4}:)?([0-9a-f]{8,16})\b")
_BLAMED = re.compile(rf"^\s*(Allocated|Freed) in {_SYMBOL}")
_END = re.compile(r"---\[ end (?:trace|Kernel panic)")
_NO_FRAME = re.compile(
    r"^\s*(?:</?(?:TASK|IRQ|NMI|EOI|#DF|#DB|#VC\d?|SOFTIRQ|ENTRY_TRAMPOLINE)>|\? 0x[0-9a-f]+\s*$)"
)
_DULL = re.compile(r"^(?:[CFDEG]S: |Modules linked in: )")
_NAMES = {"EFLAGS": "flags"}

TEXT_LINE = re.compile(r"^(?:<\d+>)?(?:\[ *(\d{1,10})\.(\d{6})\](?:\[ *([TC]\d+)\])? ?)?(.*)$")


def lines_of(text: str) -> list[Line]:
    """The last MAX_LINES lines of a log as dmesg or a console prints it."""
    found = []
    for raw in text.splitlines()[-MAX_LINES:]:
        match = TEXT_LINE.match(raw[:MAX_LINE])
        if match:
            ts = int(match[1]) * 10**9 + int(match[2]) * 1000 if match[1] else 0
            found.append(Line(ts, match[3] or "", match[4]))
    return found


def find_events(lines: Sequence[Line]) -> list[Event]:
    """The failures in a log, in the order they were reported; the first and last MAX_EVENTS / 2."""
    events: list[Event] = []
    for index, line in enumerate(lines[:MAX_LINES]):
        if not _ANY.search(line.text):
            continue
        text = line.text[:MAX_LINE]
        if _END.search(text):
            continue
        previous = events[-1] if events else None
        if previous and _belongs(previous, index, line, text):
            continue
        found = _match(text)
        if found is None:
            continue
        rule, match = found
        if previous:
            previous.end = min(previous.end, index)
        end = min(index + EVENT_LINES, len(lines))
        event = Event(rule.kind, rule, match, index, end, line.ts_ns, line.caller)
        event.died = re.search(_DIE, text) is not None
        events.append(event)
        if len(events) > MAX_EVENTS:
            del events[MAX_EVENTS // 2]  # the first and the last tell most
    for event in events:
        _read(event, lines)
    return events


def _belongs(event: Event, index: int, line: Line, text: str) -> bool:
    """Whether the line continues the last event rather than begin one."""
    if line.caller != event.caller or index - event.start > JOINED or event.rule.then is None:
        return False
    if event.died or not event.rule.then.search(text):
        return False
    event.died = re.search(_DIE, text) is not None
    return True


def _match(text: str) -> tuple[Rule, re.Match[str]] | None:
    for rule in RULES:
        match = rule.pattern.search(text)
        if match:
            return rule, match
    return None


def _read(event: Event, lines: Sequence[Line]) -> None:
    """Fills in what the event's lines say."""
    groups = event.match.groupdict()
    event.cpu = int(groups["cpu"]) if groups.get("cpu") else None
    event.comm = groups.get("comm") or ""
    event.pid = int(groups["pid"]) if groups.get("pid") else None
    event.what = _said_before(event, lines) if event.rule.freed else ""
    traced = False
    for index in range(event.start, event.end):
        line = lines[index]
        if line.caller != event.caller:
            continue
        text = line.text[:MAX_LINE]
        if index > event.start and _END.search(text):
            event.end = index + 1
            break
        if text.lstrip().startswith("Call Trace:") or text.startswith("Backtrace:"):
            traced = True
        elif traced and (frame := _FRAME.match(text)):
            if not (frame[1] or frame[2]):
                event.trace.append(f"{frame[3]}+{frame[4]}")
        elif traced and event.trace and not _NO_FRAME.match(text):
            traced = False  # the rest is another trace, or the registers of user space
            if not event.rule.freed:
                _read_line(event, text)
        else:
            _read_line(event, text)


def _said_before(event: Event, lines: Sequence[Line]) -> str:
    for line in reversed(lines[max(event.start - JOINED, 0) : event.start]):
        match = _OVERWRITTEN.match(line.text[:MAX_LINE])
        if match and line.caller == event.caller:
            return match[1]
    return ""


def _read_line(event: Event, text: str) -> None:
    for reader in _READERS:
        if reader(event, text):
            return
    words = text.strip()
    dull = words == event.head or _NO_FRAME.match(text) or _DULL.match(words)
    if len(event.detail) < 20 and words and not dull:
        event.detail.append(words)


def _read_cpu(event: Event, text: str) -> bool:
    match = _CPU.search(text)
    if match and event.cpu is None:
        event.cpu = int(match[1])
    if match and event.pid is None:
        event.pid, event.comm = int(match[2]), match[3]
    return match is not None


def _read_rip(event: Event, text: str) -> bool:
    match = _RIP.search(text)
    if match:
        if event.rip is None and int(match[1], 16) & 3 == 0:
            if match[2]:
                event.rip = Rip(match[2], int(match[3], 16), match[4] or "")
            else:
                event.rip = Rip("", 0, "", int(match[5], 16) & (1 << 64) - 1)
        return True
    old = _OLD_IP.match(text)
    if old and event.rip is None:
        event.rip = Rip(old[1], int(old[2], 16), old[3] or "")
    return old is not None


def _read_code(event: Event, text: str) -> bool:
    if not text.startswith("Code: "):
        return False
    if event.rip and not event.code:
        event.code = text
    return True


def _read_registers(event: Event, text: str) -> bool:
    """Only those that follow the kernel's RIP: user space's come after the trace."""
    found = _REGISTER.findall(text)
    if found and event.rip:
        for name, value in found:
            key = _NAMES.get(name) or name.lower().removeprefix("r" if name[1].isalpha() else "")
            key = re.sub(r"^r0", "r", key)
            event.registers.setdefault(key, int(value, 16))
    return bool(found)


def _read_blamed(event: Event, text: str) -> bool:
    match = _BLAMED.match(text)
    if match:
        event.blamed.setdefault(match[1], match[2])
    return match is not None


_READERS: tuple[Callable[[Event, str], bool], ...] = (
    _read_cpu, _read_rip, _read_code, _read_registers, _read_blamed,
)  # fmt: skip


def decisive(events: Iterable[Event]) -> Event | None:
    """The event that says what happened: the panic, or what a mere "Fatal exception" ends."""
    known = list(events)
    panics = [event for event in known if event.kind is Kind.PANIC]
    if not panics:
        serious = [event for event in known if event.kind >= Kind.STALL]
        return _first_of_greatest(serious or known)
    last = panics[0]
    if not last.generic:
        return last
    before = [event for event in known if event.start < last.start]
    near = [e for e in before if last.ts_ns - e.ts_ns <= CLUSTER_NS] or before[-1:]
    if "panic_on_warn" in last.head:
        near = near[-1:]
    return _first_of_greatest(near) or last


def _first_of_greatest(events: Sequence[Event]) -> Event | None:
    most = max((event.kind for event in events), default=None)
    return next((event for event in events if event.kind is most), None)

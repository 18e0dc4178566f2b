# SPDX-License-Identifier: GPL-2.0-or-later
"""Run control under load and under kill -9: runs in the root vnode, prints one JSON object.

python3 -m tests.life.control_stress hits VNODE COUNT
python3 -m tests.life.control_stress kills VNODE COUNT SEED
python3 -m tests.life.control_stress lapse VNODE COUNT SEED
python3 -m tests.life.control_stress again VNODE COUNT
python3 -m tests.life.control_stress attach VNODE COUNT
python3 -m tests.life.control_stress stops VNODE COUNT
python3 -m tests.life.control_stress hang VNODE
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn, cast

from adeos.bridge import Bridge
from adeos.kmb import KmbMachine
from debugger import control, sources
from debugger.control import RunControl
from debugger.errors import ControlLost, TargetError
from debugger.pilot import Pilot

FUNCTION = "kernel_clone"
HIT_SECONDS = 20.0
ALIVE_SECONDS = 10.0
LEASE_MS = 200  # of `lapse`


class Stamped(KmbMachine):
    """Knows when each CPU was sent its first NMI."""

    def __init__(self) -> None:
        super().__init__(writable=True)
        self.sent: dict[int, int] = {}

    def nmi(self, vnode: int, cpu: int) -> None:
        self.sent.setdefault(cpu, self.tsc())
        super().nmi(vnode, cpu)


class Subject:
    """A vnode under control of this process."""

    def __init__(self, number: int) -> None:
        self.machine = KmbMachine()
        self.target = sources.vnode(
            self.machine,
            number,
            "subject",
            tasks=False,
            open_writable=Stamped,
        )
        binding = self.machine.query(number)
        assert binding is not None
        self.number = number
        self.bridge = Bridge.open(self.machine, binding.region)
        self.kernel = self.target.kernel
        self.va = self.kernel.symbols.address(FUNCTION)
        self.clean = self.kernel.read(self.va, 1)
        self._known = len(self._complaints())

    def learn(self) -> None:
        """Where breakpoints may be: children know it then."""
        with suppress(ControlLost):
            self.pilot.insert(1, 0, self.va, 1)

    @property
    def pilot(self) -> Pilot:
        assert self.target.pilot is not None
        return self.target.pilot

    @property
    def control(self) -> RunControl:
        return self.pilot.control

    def every(self) -> dict[int, bool]:
        return dict.fromkeys(range(1, self.bridge.root_side().ncpus + 1), False)

    def wait(self, seconds: float = HIT_SECONDS) -> tuple[int, str] | None:
        """The next stop: its thread and why."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            halt = self.pilot.halted()
            if halt is not None:
                return halt
            time.sleep(0.0005)
        return None

    def beats(self) -> int:
        return sum(sum(beat.count[:3]) for beat in self.bridge.beats(self.bridge.root_side().ncpus))

    def complaints(self) -> list[str]:
        """What its kernel has complained of since this was made."""
        return self._complaints()[self._known :]

    def _complaints(self) -> list[str]:
        words = ("WARNING", "BUG", "stall", "Uhhuh", "lockup", "Oops", "int3")
        return [r.text for r in self.kernel.log() if any(word in r.text for word in words)]


class StopTime(NamedTuple):
    """Parts of a stop, in milliseconds; `whole` is from the wish to our knowing that all stand.

    nmi      from the wish to the last NMI sent: our own words in the mailboxes
    parked   from a CPU's NMI to its park, of the slowest CPU
    parked_all  from the wish until the last CPU has parked
    """

    nmi: float
    parked: float
    parked_all: float
    whole: float


def stop_times(subject: Subject, count: int) -> list[StopTime]:
    """What each of `count` stops takes."""
    khz = subject.machine.info().tsc_khz
    times = []
    for _ in range(count):
        time.sleep(0.02)
        sent = cast(Stamped, subject.control.machine).sent
        sent.clear()
        begin = subject.machine.tsc()
        subject.control.park()
        end = subject.machine.tsc()
        stops = [subject.control.cause(cpu - 1) for cpu in subject.every()]
        slowest = max(stop.tsc - sent.get(stop.cpu, begin) for stop in stops)
        last = max(stop.tsc for stop in stops)
        parts = (max(sent.values()) - begin, slowest, last - begin, end - begin)
        times.append(StopTime(*(part / khz for part in parts)))
        subject.pilot.resume(subject.every())
    return times


def hits(number: int, count: int) -> dict[str, Any]:
    """A breakpoint that is hit `count` times, stepped over each time, as gdb does it."""
    subject = Subject(number)
    subject.pilot.halt()
    seen = lost = 0
    while seen < count:
        subject.pilot.insert(1, 0, subject.va, 1)
        subject.pilot.resume(subject.every())
        halt = subject.wait()
        if halt is None:
            lost += 1
            break
        frame = subject.control.frame(halt[0] - 1)
        if frame is None or frame.reg("rip") != subject.va:
            lost += 1
        seen += 1
        subject.pilot.remove(0, subject.va, 1)
        subject.pilot.resume({halt[0]: True})
        if subject.wait() is None:
            lost += 1
            break
    subject.pilot.resume(subject.every())
    times = stop_times(subject, 20)
    subject.pilot.give_back()
    time.sleep(1)
    return {
        "hits": seen,
        "lost": lost,
        "park_ms": statistics.median(stop.parked_all for stop in times),
        "held": subject.machine.query(number).holder,
        "complaints": subject.complaints(),
    }


def busy(subject: Subject) -> NoReturn:
    """What a debugger does all the time; to be killed or to lose control."""
    while True:
        subject.pilot.halt()
        subject.pilot.insert(1, 0, subject.va, 1)
        subject.pilot.resume(subject.every())
        halt = subject.wait(1.0)
        if halt is not None:
            subject.pilot.resume({halt[0]: True})
            subject.wait(1.0)
        subject.pilot.remove(0, subject.va, 1)
        subject.pilot.resume(subject.every())
        subject.pilot.give_back()


def kills(number: int, count: int, seed: int) -> dict[str, Any]:
    """kill -9 at `count` random moments: the vnode lives on and is clean each time."""
    chance = random.Random(seed)
    subject = Subject(number)
    subject.learn()
    bad: list[str] = []
    held = 0
    for turn in range(count):
        child = _at_work(subject, busy, chance)
        held += bool(subject.machine.query(number).holder)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        problem = _aftermath(subject)
        if problem:
            bad.append(f"{turn}: {problem}")
    return {
        "kills": count,
        "held_when_killed": held,
        "bad": bad,
        "complaints": subject.complaints(),
    }


def lapse(number: int, count: int, seed: int) -> dict[str, Any]:
    """A debugger frozen at `count` random moments until its lease is over.

    Every other one wakes up then, and must find that control is lost.
    """
    chance = random.Random(seed)
    control.LEASE_MS, control.RENEW_SECONDS = LEASE_MS, LEASE_MS / 4000
    subject = Subject(number)
    subject.learn()
    incarnation = subject.bridge.root_side().incarnation
    bad: list[str] = []
    held = armed = done = 0
    while done < count and not bad:
        done += 1
        child = _at_work(subject, _until_lost, chance)
        os.kill(child, signal.SIGSTOP)
        _, status = os.waitpid(child, os.WUNTRACED)
        held += bool(subject.machine.query(number).holder)
        armed += any(subject.bridge.control().breakpoint)
        until = time.monotonic() + ALIVE_SECONDS
        while subject.machine.query(number).holder and time.monotonic() < until:
            time.sleep(0.005)
        problem = _aftermath(subject)
        if os.WIFSTOPPED(status):
            if done % 2:
                os.kill(child, signal.SIGCONT)
                time.sleep(0.1)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            problem = problem or "the debugger failed"
        problem = problem or _aftermath(subject)
        if subject.bridge.root_side().incarnation != incarnation:
            problem = "the vnode was restarted"
        if problem:
            bad.append(f"{done}: {problem}")
    return {
        "lapses": done,
        "held_when_frozen": held,
        "armed_when_frozen": armed,
        "bad": bad,
        "complaints": subject.complaints(),
    }


def _at_work(subject: Subject, work: Callable[[Subject], NoReturn], chance: random.Random) -> int:
    """The pid of a child that does `work`, at a random moment of it."""
    child = os.fork()  # what it opens for control is its own
    if not child:
        work(subject)
    until = time.monotonic() + ALIVE_SECONDS
    while not subject.machine.query(subject.number).holder and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(chance.random() * 0.5)
    return child


def _until_lost(subject: Subject) -> NoReturn:
    try:
        busy(subject)
    except (ControlLost, TargetError):
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def again(number: int, count: int) -> dict[str, Any]:
    """`count` stops with NMI upon NMI, as where the answer is late: some come in a CPU's steps."""
    control.NMI_AGAIN_SECONDS = 0.0
    subject = Subject(number)
    subject.control.take()
    done = late = 0
    while done < count:
        try:
            stop_times(subject, 1)
            done += 1
        except TargetError:
            late += 1
            assert late < count
    subject.pilot.give_back()
    time.sleep(1)
    return {"stops": done, "late": late, "complaints": subject.complaints()}


def _aftermath(subject: Subject) -> str:
    binding = subject.machine.query(subject.number)
    if binding is None or binding.holder:
        return f"still held by {binding and binding.holder}"
    if subject.kernel.read(subject.va, 1) != subject.clean:
        return "a breakpoint is left"
    beats, until = subject.beats(), time.monotonic() + ALIVE_SECONDS
    while subject.beats() <= beats + 3:
        if time.monotonic() > until:
            return "no beats"
        time.sleep(0.01)
    return ""


def attach(number: int, count: int) -> dict[str, Any]:
    """Take control, stop, let go: `count` times."""
    subject = Subject(number)
    for _ in range(count):
        subject.pilot.halt()
        subject.pilot.give_back()
    time.sleep(1)
    return {
        "attached": count,
        "held": subject.machine.query(number).holder,
        "complaints": subject.complaints(),
    }


def stops(number: int, count: int) -> dict[str, Any]:
    """How long a stop takes, part by part: least, median, most."""
    subject = Subject(number)
    subject.control.take()
    times = stop_times(subject, count)
    subject.pilot.give_back()
    result: dict[str, Any] = {"stops": count}
    for name, values in zip(StopTime._fields, zip(*times, strict=True), strict=True):
        result[f"{name}_ms"] = [round(pick(values), 3) for pick in (min, statistics.median, max)]
    return result


def hang(number: int) -> dict[str, Any]:
    """A vnode with its interrupts off is stopped all the same, and is no crash while it is held."""
    from adeos.bridge import RootBridge
    from watchdog import paths
    from watchdog.client import Client

    subject = Subject(number)
    subject.control.take()
    client = Client(paths.control_socket())
    client.call("inject", vnode=number, kind="irqhang")
    root = RootBridge.open(subject.machine)
    until = time.monotonic() + ALIVE_SECONDS
    while (status := root.status(number)).state.name != "HELD" and time.monotonic() < until:
        time.sleep(0.05)
    subject.control.park()
    frames = [subject.control.frame(cpu) for cpu in range(len(subject.every()))]
    where = [subject.kernel.symbols.describe(frame.reg("rip")) for frame in frames if frame]
    off = [not frame.reg("eflags") & 1 << 9 for frame in frames if frame]
    subject.pilot.give_back()
    return {"state": status.state.name, "reason": status.reason, "where": where, "off": off}


def main(what: str, *words: str) -> None:
    run = {
        "hits": hits,
        "kills": kills,
        "lapse": lapse,
        "again": again,
        "attach": attach,
        "stops": stops,
        "hang": hang,
    }[what]
    print(json.dumps(run(*map(int, words))))


if __name__ == "__main__":
    main(*sys.argv[1:])

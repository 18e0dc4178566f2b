# SPDX-License-Identifier: GPL-2.0-or-later
"""python -m crashdump.worker STORE NUMBER: writes the dump of an incident in the background.

Then a process of its own analyses it (crashdump.analysis): nobody waits for that.

All it needs is in the incident; /dev/kmb is opened, read-only, for memory held
in place.  The outcome is in the incident's ``dump``; the exit code is 0 when it
was written or there was nothing to do, else the error's.
"""

import os
import sys
from functools import cache
from pathlib import Path

from adeos.machine import Machine
from crashdump.capture import write_dump
from crashdump.errors import CrashdumpError
from crashdump.incident import DumpState
from crashdump.store import IncidentStore


@cache
def _machine() -> Machine:
    from adeos.kmb import KmbMachine

    return KmbMachine()


def _let_go() -> None:
    """The analysis needs no /dev/kmb, and may last: kmb.ko can be unloaded meanwhile."""
    if _machine.cache_info().currsize:
        _machine().close()


def _step_back() -> None:
    """Gives way to everybody, but gets its tenth on a root that is always busy.

    SCHED_IDLE would starve there, and with it the region that the dump still holds.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.nice(10)
    except OSError:
        pass


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or not arguments[1].isdecimal():
        print("usage: python -m crashdump.worker STORE NUMBER", file=sys.stderr)
        return 2
    _step_back()
    try:
        with IncidentStore(Path(arguments[0])) as store:
            dump = write_dump(store, int(arguments[1]), lambda *at: _machine().view(*at)).dump
    except CrashdumpError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    finally:
        _let_go()
    if dump.state not in (DumpState.SKIPPED, DumpState.FAILED, DumpState.LOST):
        return 0
    print(f"incident {arguments[1]}: dump {dump.state}: {dump.reason}", file=sys.stderr)
    return 1


def explain(arguments: list[str]) -> None:
    """Begins the analysis; without luck the incident stays without a title."""
    try:
        from crashdump.analysis.record import in_background

        in_background(Path(arguments[0]), int(arguments[1]))
    except Exception as problem:
        print(f"incident {arguments[1]}: not analysed: {problem}", file=sys.stderr)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code in (0, 1):
        explain(sys.argv[1:])
    sys.exit(code)

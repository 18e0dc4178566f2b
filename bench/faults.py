# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots kernels that fail and compares what `analyze` says with what was done to them.

    python bench/faults.py IMAGE CRASHER.KO [FAULT ...]

IMAGE is a bzImage, CRASHER.KO is built from a copy of tests/introspect/crasher:

    make -C HEADERS M=COPY CONFIG_DEBUG_INFO_BTF_MODULES= modules

Prints for each fault (all of tests/crashdump/faults.py unless some are named) whether the title and
the culprit are right and which panels could not be read; of "deadlock", and of "rtlocks" on
PREEMPT_RT, also the locks.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from crashdump.analysis.report import Report, State, Table
from crashdump.analysis.run import analyze_file
from tests.crashdump.faults import FAULTS, RT_FAULTS, crash

PATIENCE = 600  # seconds, for a host that is busy with others


def verdict(name: str, report: Report) -> str:
    fault = FAULTS.get(name)
    right = fault is None or (report.title, report.culprit) == (fault.title, fault.culprit)
    unread = [f"{one.name}: {one.note}" for one in report.panels if one.state is not State.OK]
    says = "right" if right else f"WRONG: {report.title!r}, culprit {report.culprit!r}"
    return "; ".join([says, *unread])


def locks(report: Report) -> list[str]:
    panel = report.panel("locks")
    rows = (
        [row for one in panel.blocks if isinstance(one, Table) for row in one.rows] if panel else []
    )
    return [f"    {kind} {name}: owner {owner}, waiters {waiters}"
            for name, kind, owner, _, waiters in rows]  # fmt: skip


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    image, module = map(Path, sys.argv[1:3])
    for name in sys.argv[3:] or FAULTS:
        with tempfile.TemporaryDirectory() as place:
            try:
                core = crash(name, Path(place), image, module.read_bytes(), patience=PATIENCE)
            except AssertionError as problem:
                print(f"{name}: not reached: {str(problem)[-300:]}", flush=True)
                continue
            report = analyze_file(core)
        print(f"{name}: {verdict(name, report)}", flush=True)
        if name in ("deadlock", *RT_FAULTS):
            print(*locks(report), sep="\n", flush=True)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor: checks the machine and says plainly what containment does not cover."""

from __future__ import annotations

from pathlib import Path

import click

from cli import machine_check, output
from cli.errors import ExitCode
from cli.session import MachineFactory, Session, open_machine
from cli.verb import Place, verb

COLOUR = {"ok": "green", "note": "yellow", "missing": "red"}


@verb(
    "doctor",
    place=lambda given: Place.HERE if given["here"] else Place.EITHER,
    examples=[
        "vnode-debug doctor            the box when one runs, else this machine",
        "vnode-debug doctor --here     this machine",
        "vnode-debug doctor --json | jq '.checks[] | select(.verdict == \"missing\")'",
    ],
)
@click.option("--here", is_flag=True, help="Check this machine even when a box runs.")
def command(session: Session, here: bool) -> int:
    """Check this machine and tell its limits."""
    opener = session.machine_factory or open_machine
    facts = machine_check.gather(open_machine=opener, box_accel=box_accel())
    role, checks = machine_check.role(facts), machine_check.check(facts)
    if role is machine_check.Role.ROOT:
        checks.append(dumps(session))
        checks += succession(opener)
    if session.json:
        output.write_json(
            {
                "role": role.value,
                "checks": [c._asdict() | {"verdict": c.verdict.value} for c in checks],
                "limits": machine_check.LIMITS,
            }
        )
    else:
        rows = [
            (c.verdict.value, c.name, c.text + (f": {c.hint}" if c.hint else "")) for c in checks
        ]
        output.write(f"This machine as {role.value}\n")
        output.write(output.table(("", "CHECK", ""), rows, colour=COLOUR))
        output.write("\nLimits of containment")
        output.write("\n".join(f"- {limit}" for limit in machine_check.LIMITS))
    return ExitCode.DONE if machine_check.complete(checks) else ExitCode.MACHINE


def succession(opener: MachineFactory) -> list[machine_check.Check]:
    """What a panic of the root would end in; nothing where the root bridge is not seen."""
    from adeos.bridge import RootBridge
    from adeos.errors import AdeosError

    try:
        last = RootBridge.open(opener()).last()
        panic = Path("/proc/sys/kernel/panic").read_text().strip()
    except (AdeosError, OSError):
        return []
    return [machine_check.succession(last.successor, panic)] if last is not None else []


def dumps(session: Session) -> machine_check.Check:
    """What the dumps take of the disk, and what they may."""
    from crashdump import quota
    from crashdump.errors import CrashdumpError
    from watchdog import config as configs
    from watchdog import paths
    from watchdog.errors import ConfigError

    try:
        used = quota.usage(session.store())
    except (OSError, CrashdumpError) as error:
        what = "none yet" if isinstance(error, FileNotFoundError) else str(error)
        return machine_check.Check("dumps", machine_check.Verdict.NOTE, what)
    try:
        limits = configs.load(paths.config_file(), files=False).dumps.limits
    except ConfigError:
        limits = configs.Dumps().limits
    return machine_check.dumps(used, limits)


def box_accel() -> str:
    """What QEMU runs a box with here; "" when none runs."""
    from box import machine
    from box.errors import BoxError

    try:
        status = machine.status()
    except BoxError:
        return ""
    record = status.record
    return record.accel if record is not None and status.state is machine.State.RUNNING else ""

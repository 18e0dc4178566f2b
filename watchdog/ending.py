# SPDX-License-Identifier: GPL-2.0-or-later
"""What has to happen before memory goes back to the root: nothing runs there, no dump lies there.

For `down`: the daemon is gone by now, in order or by a kill.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from adeos import abi
from adeos.errors import OwnerError
from adeos.machine import Machine
from crashdump import capture
from crashdump.incident import PENDING, DumpMode, DumpState
from crashdump.store import IncidentStore
from watchdog.errors import TimedOutError

PARK_MS = 1000
POLL_S = 0.2
CLAIM_S = 2.0
"""How long a killed daemon may take to be gone."""


def stop_orphans(machine: Machine) -> list[int]:
    """Park and unbind what a killed daemon left running; OwnerError when another one leads."""
    deadline = time.monotonic() + CLAIM_S
    while True:
        try:
            machine.claim()
            break
        except OwnerError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)
    stopped = []
    for vnode in range(1, abi.VN_MAX_VNODES):
        if machine.query(vnode) is not None:
            machine.park(vnode, PARK_MS)
            machine.unbind(vnode)
            stopped.append(vnode)
    return stopped


def save_dumps(directory: Path, deadline: float) -> list[int]:
    """Write out the dumps whose memory is still in place; the incidents.

    TimedOutError when `deadline` (time.monotonic) passes first; workers go on then.
    """
    saved = []
    with IncidentStore(directory) as store:
        for incident in store.list(dumps=PENDING):
            dump = incident.dump
            if dump.mode is DumpMode.COPY and dump.state is not DumpState.WRITING:
                continue  # in a file by now, or it never will be
            _finish(store, incident.id, deadline)
            saved.append(incident.id)
    return saved


def _finish(store: IncidentStore, incident: int, deadline: float) -> None:
    while store.get(incident).dump.state in PENDING:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimedOutError(
                f"the dump of incident {incident} is still being written; repeat this"
            )
        try:
            subprocess.run(
                capture.worker_command(store, incident),
                env=capture.worker_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            continue
        time.sleep(POLL_S)  # or another worker is at it

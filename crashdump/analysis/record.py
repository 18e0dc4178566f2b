# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the analysis of an incident: analysis.json beside the dump, the title in the store."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from crashdump.analysis import report
from crashdump.analysis.run import analyze_incident
from crashdump.files import replace_file
from crashdump.incident import PENDING
from crashdump.store import IncidentStore

ANALYSIS_FILE = "analysis.json"
CPU_SECONDS = 600  # for a hostile dump: an ordinary one takes half a second, in the box six
DATA_BYTES = 1 << 30


def record(store: IncidentStore, number: int) -> bool:
    """Analyses a crash whose dump is settled, once; whether there was anything to do."""
    incident = store.get(number)
    if incident.title or not incident.crash or incident.dump.state in PENDING:
        return False
    found = analyze_incident(store, number)
    replace_file(store.path(number) / ANALYSIS_FILE, report.encode(found), sync=False)
    store.update(number, title=found.title)
    return True


def in_background(directory: Path, number: int) -> int:
    """Forks a process of its own session that calls :func:`record`; its pid.

    The caller goes on at once: whoever waits for the dump does not wait for the
    analysis.  The process is bounded in CPU time and memory; what becomes of it
    touches nothing but analysis.json and the title.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
        with IncidentStore(directory) as store:
            record(store, number)
        code = 0
    finally:
        os._exit(code)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Incidents of real vnodes are analysed in the background: the right title, recurrence counted."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    Vnodes = Any  # of conftest.py

pytestmark = [pytest.mark.box, pytest.mark.slow, pytest.mark.timeout(900)]

TITLES = {
    "oops": "BUG: unable to handle kernel NULL pointer dereference in do_oops",
    "softlockup": "hang in do_softlockup",
    "irqhang": "hang in do_irqhang (interrupts off)",
}
UNTIL = 180.0  # s; the analysis runs at idle priority in an emulated machine


def analysed(vnodes: Vnodes, number: int) -> dict[str, Any]:
    """The incident, once it has a title."""
    deadline = time.monotonic() + UNTIL
    while not (one := vnodes.json("show", str(number)))["title"]:
        assert time.monotonic() < deadline, one
        time.sleep(1)
    return dict(one)


@pytest.mark.parametrize("fault", TITLES)
def test_an_incident_gets_its_title(vnodes: Vnodes, fault: str) -> None:
    vnodes.wait(2, "running")
    incident = vnodes.fail(2, fault)
    one = analysed(vnodes, incident["id"])
    assert one["title"] == TITLES[fault]
    assert one["title"] in vnodes.text("incidents")
    report = json.loads(vnodes.box.check(["cat", f"{one['directory']}/analysis.json"]))
    failed = {p["name"]: p["note"] for p in report["panels"] if p["state"] != "ok"}
    assert failed == {}
    assert (report["title"], report["module"]) == (one["title"], "vnode_agent")
    print(f"{fault}: {report['seconds']} s of CPU time in the box")

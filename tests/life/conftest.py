# SPDX-License-Identifier: GPL-2.0-or-later
"""The vnodes of the box, worked through the command alone, as a user would."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    RunningBox = Any

UNTIL = 300.0  # s; an incident takes some seconds on an idle machine
SELDOM = 3.0  # s between questions: each costs the root's only CPU seconds under emulation


class Vnodes:
    """`vnode-debug` in the box."""

    def __init__(self, box: RunningBox) -> None:
        self.box = box

    def run(self, *words: str, timeout: float = 200) -> Any:
        return self.box.verb(*words, timeout=timeout)

    def text(self, *words: str, timeout: float = 200) -> str:
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def json(self, *words: str, timeout: float = 200) -> Any:
        return json.loads(self.text(*words, "--json", timeout=timeout))

    def status(self, vnode: int) -> dict[str, Any]:
        return next(one for one in self.json("status") if one["id"] == vnode)

    def last_incident(self, vnode: int) -> int:
        found = self.json("incidents", "--vnode", str(vnode), "-r", "-n", "1")
        return found[0]["id"] if found else 0

    def incident_after(self, number: int, vnode: int) -> dict[str, Any]:
        """The first incident of `vnode` later than `number`, once it is over with its dump."""
        deadline = time.monotonic() + UNTIL
        later: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            later = [i for i in self.json("incidents", "--vnode", str(vnode)) if i["id"] > number]
            if later and over(later[0]):
                return self.json("show", str(later[0]["id"]))
            time.sleep(SELDOM)
        pytest.fail(f"no finished incident of vnode {vnode} after {number}: {later}")

    def fail(self, vnode: int, *words: str) -> dict[str, Any]:
        """Injects a fault and gives its incident, once it is over with its dump."""
        arguments = ("--wait", "--timeout", str(UNTIL))
        return dict(self.json("inject", str(vnode), *words, *arguments, timeout=UNTIL + 20)[0])

    def wait(self, vnode: int, state: str) -> dict[str, Any]:
        deadline = time.monotonic() + UNTIL
        while (one := self.status(vnode))["state"] != state:
            assert time.monotonic() < deadline, f"vnode {vnode} is {one['state']}, not {state}"
            time.sleep(SELDOM)
        return one


def over(incident: dict[str, Any]) -> bool:
    pending = ("held", "copying", "copied", "writing")
    return incident["state"] != "open" and incident["dump"]["state"] not in pending


@pytest.fixture(scope="package")
def vnodes(box: RunningBox) -> Iterator[Vnodes]:
    both = Vnodes(box)
    both.text("up", "--wait")
    yield both
    both.text("down", timeout=120)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the keys for incidents do, on each screen that has them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tui.off_loop import off_loop, one_line, start
from tui.screens.board import Board

if TYPE_CHECKING:
    from crashdump.incident import Incident

PROGRAMS = {"gdb": "attach", "drgn": "drgn"}


class IncidentKeys(Board):
    """A board; `chosen_incident` tells which one is meant."""

    def chosen_incident(self) -> Incident | None:
        """The incident that an action is for."""
        raise NotImplementedError

    def action_act(self, name: str) -> None:
        """gdb, drgn, export or capsule."""
        one = self.chosen_incident()
        if one is None:
            self.dashboard.say("no incident")
        elif name in PROGRAMS:
            self.dashboard.hand_over(PROGRAMS[name], "--incident", str(one.id))
        else:
            start(self, partial(self._write, name, one.id), "write")

    async def _write(self, name: str, number: int) -> None:
        """A file in the directory that the dashboard was started in."""
        client = self.dashboard.client
        work = client.capsule if name == "capsule" else client.export
        self.dashboard.say(f"incident {number}: {name} begins")
        try:
            path = await off_loop(lambda: work(number, Path.cwd()))
        except Exception as error:
            self.dashboard.say(one_line(error), bad=True)
        else:
            self.dashboard.say(f"wrote {path}")

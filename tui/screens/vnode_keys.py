# SPDX-License-Identifier: GPL-2.0-or-later
"""What the keys for vnodes do, on each screen that has them."""

from __future__ import annotations

from tui.screens.board import Board


class VnodeKeys(Board):
    """A board; `chosen` tells which vnodes are meant."""

    def chosen(self) -> list[int]:
        """The vnodes that an action is for."""
        raise NotImplementedError

    def action_act(self, name: str) -> None:
        """An action of tui.actions."""
        self.dashboard.act(name, self.chosen())

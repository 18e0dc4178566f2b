# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard: looks at the machine a few times a second, and shows it on the board in front."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SuspendNotSupported, SystemCommand
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.screen import Screen

from tui import keys, themes
from tui.actions import ACTIONS, Action, blast_radius, needs_answer
from tui.client import Client
from tui.look import Look
from tui.off_loop import off_loop, one_line, start
from tui.recorder import Recorder
from tui.screens.board import Board
from tui.screens.confirm import Confirm
from tui.text import safe

if TYPE_CHECKING:
    from crashdump.incident import Incident

PERIOD_S = 0.25
INCIDENTS_S = 1.0
MEASURE_S = 5.0
"""How often it is read how much of its CPUs and memory a kernel uses."""

RunChild = Callable[[Sequence[str]], int]


def run_child(argv: Sequence[str]) -> int:
    """Runs a program on this terminal; its exit code.  What a failed one said stays to be read."""
    code = subprocess.run(argv, check=False).returncode
    if code not in (0, 130):
        print(f"\n{argv[2] if len(argv) > 2 else argv[0]}: exit code {code}.  Enter goes back.")
        sys.stdin.readline()
    return code


class Dashboard(App[None]):
    """`command` is the command line of vnode-debug, for programs that take the terminal."""

    TITLE = "vnode-debug"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("anywhere")

    def __init__(
        self,
        client: Client,
        *,
        command: Sequence[str] = (),
        readonly: bool = False,
        keymap: Mapping[str, str] | None = None,
        run: RunChild = run_child,
        period: float = PERIOD_S,
    ) -> None:
        super().__init__()
        self.client = client
        self.command = tuple(command)
        self.readonly = readonly
        self.look = Look()
        self.recorder = Recorder()
        self.incidents: list[Incident] = []
        self._run = run
        self._period = period
        for theme in themes.THEMES:
            self.register_theme(theme)
        self.theme = themes.DEFAULT
        self.set_keymap(dict(keymap or {}))

    def get_default_screen(self) -> Screen[Any]:
        from tui.screens.overview import Overview

        return Overview()

    def on_mount(self) -> None:
        start(self, self._watch, "watch")
        start(self, self._list_incidents, "incidents")
        start(self, self._measure, "measure")

    # What is seen

    async def _watch(self) -> None:
        while True:
            self.look = await off_loop(self.client.look)
            self.recorder.add(self.look)
            self._tell(lambda board: board.show(self.look))
            await asyncio.sleep(self._period)

    def _tell(self, news: Callable[[Board], None]) -> None:
        """News for the board in front; one that is being taken down has no widgets any more."""
        if self.board is not None:
            with suppress(NoMatches):
                news(self.board)

    async def _list_incidents(self) -> None:
        stamp: tuple[int, ...] = ()
        while True:
            try:
                now = await off_loop(self.client.incidents_stamp)
                if now != stamp:
                    self.incidents = await off_loop(self.client.incidents)
                    stamp = now
                    self._tell(lambda board: board.show_incidents(self.incidents))
            except Exception as error:
                self.say(one_line(error), bad=True)
                await asyncio.sleep(10 * INCIDENTS_S)
            await asyncio.sleep(INCIDENTS_S)

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(min(self._period * 4, MEASURE_S))
            for vnode in self.look.vnodes:
                if vnode.row.state == "running":
                    await off_loop(lambda number=vnode.row.id: self.client.kernels.measure(number))  # type: ignore[misc]
                else:
                    self.client.kernels.forget(vnode.row.id)
            await asyncio.sleep(MEASURE_S)

    @property
    def board(self) -> Board | None:
        """The screen in front, dialogs not counted."""
        boards = [screen for screen in self.screen_stack if isinstance(screen, Board)]
        return boards[-1] if boards and boards[-1].ready else None

    def say(self, text: str, *, bad: bool = False) -> None:
        """A message in the corner."""
        self.notify(safe(text), severity="error" if bad else "information", markup=False)

    # Where to

    def action_go(self, name: str) -> None:
        """A screen by name, over the overview."""
        from tui.screens.incidents import Incidents
        from tui.screens.timeline import Timeline

        while len(self.screen_stack) > 1:
            self.pop_screen()
        if name == "incidents":
            self.push_screen(Incidents())
        elif name == "timeline":
            self.push_screen(Timeline())

    async def action_back(self) -> None:
        """The screen before; the overview is the last."""
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def action_help(self) -> None:
        """All keys."""
        from tui.screens.help import Help

        self.push_screen(Help(self._keymap))

    def action_next_theme(self) -> None:
        """The theme after this one."""
        at = themes.NAMES.index(self.theme) if self.theme in themes.NAMES else -1
        self.theme = themes.NAMES[(at + 1) % len(themes.NAMES)]
        self.say(f"theme {self.theme}")

    def action_picture(self) -> None:
        """The screen as a file."""
        try:
            self.say(f"wrote {self.save_screenshot(path=str(Path.cwd()))}")
        except OSError as error:
            self.say(one_line(error), bad=True)

    def action_copy_line(self) -> None:
        """The line under the cursor to the clipboard, by OSC 52."""
        line = self.board.line() if self.board is not None else ""
        if line:
            self.copy_to_clipboard(line)
            self.say(f"copied {len(line)} characters")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the palette offers: what keys do here, each vnode, each theme."""
        for name, binding in screen.active_bindings.items():
            what = binding.binding
            if what.id is not None and binding.node.is_attached:
                action, node = what.action, binding.node
                yield SystemCommand(
                    what.description,
                    f"key {keys.shown(name)}",
                    lambda action=action, node=node: self.call_later(self.run_action, action, node),
                )
        for vnode in self.look.vnodes:
            row = vnode.row
            yield SystemCommand(
                f"vnode {row.id} ({row.name})",
                f"open it, {row.state}",
                lambda number=row.id: self.open_vnode(number),
            )
        for theme in themes.NAMES:
            yield SystemCommand(
                f"theme {theme}", "use it", lambda theme=theme: setattr(self, "theme", theme)
            )

    def open_vnode(self, number: int) -> None:
        """The screen of a vnode."""
        from tui.screens.vnode import VnodeScreen

        if self.look.vnode(number) is not None:
            self.push_screen(VnodeScreen(number))

    # What is done

    def act(self, name: str, vnodes: Sequence[int]) -> None:
        """Does an action to vnodes, once it is confirmed where it has to be."""
        action = ACTIONS[name]
        known = [vnode for number in vnodes if (vnode := self.look.vnode(number)) is not None]
        if not known:
            self.say("the root is no vnode: choose another" if 0 in vnodes else "no vnode")
        elif self.readonly and needs_answer(action):
            self.say(f"{action.title}: this dashboard is read-only", bad=True)
        elif needs_answer(action):
            names = ", ".join(f"{one.row.id} ({one.row.name})" for one in known)
            reached = [line for one in known for line in blast_radius(action, one, self.look)]
            numbers = [one.row.id for one in known]
            self.push_screen(
                Confirm(f"{action.title} vnode {names}?", reached),
                lambda yes: self._do(action, numbers) if yes else None,
            )
        else:
            self._do(action, [one.row.id for one in known])

    def _do(self, action: Action, vnodes: Sequence[int]) -> None:
        if action.verb:
            start(self, partial(self._ask, action, vnodes), "ask")
            return
        words = action.readonly if self.readonly and action.readonly else action.program
        # gdb takes several vnodes; the others take one
        several = vnodes if action.program[0] == "attach" else vnodes[:1]
        self.hand_over(*words, *map(str, several))

    async def _ask(self, action: Action, vnodes: Sequence[int]) -> None:
        for vnode in vnodes:
            ask = partial(self.client.ask, action.verb, vnode=vnode, **action.arguments)
            try:
                reply = await off_loop(ask)
            except Exception as error:
                self.say(f"{action.title} vnode {vnode}: {one_line(error)}", bad=True)
            else:
                self.say(f"{action.title} vnode {vnode}: {_said(reply)}")

    def hand_over(self, *words: str) -> None:
        """Runs vnode-debug with these words on this terminal, and comes back when it ends."""
        try:
            with self.suspend():
                code = self._run([*self.command, *words])
        except SuspendNotSupported:
            self.say("this needs a terminal: run vnode-debug tui on one", bad=True)
            return
        except OSError as error:
            self.say(one_line(error), bad=True)
            return
        self.refresh(layout=True)
        if code:
            self.say(f"vnode-debug {words[0]}: exit code {code}", bad=True)


def _said(reply: Mapping[str, Any]) -> str:
    if "incident" in reply:
        return f"incident {reply['incident']}, {reply.get('dump', '')}"
    if "cpus" in reply:
        return f"registers of {len(reply['cpus'])} CPUs saved"
    if "slot" in reply:
        return f"into slot {reply['slot']}"
    return str(reply.get("state", "accepted"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The error tree of this package.

WatchdogError            1
  ConfigError            3   all mistakes of one file
  UnknownVnodeError      4
  ModuleError            5   kmb.ko cannot be loaded or unloaded
  RefusedError           6   the daemon runs and says no (bound CPU, wrong state)
    NoDaemonError        6   nobody answers
    AlreadyRunningError  6   another daemon owns the machine
  TimedOutError          7
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class WatchdogError(Exception):
    """Root of the tree; the text is one line that says what, where and what to do."""

    exit_code = 1


class Mistake(NamedTuple):
    """One mistake in a config file; `line` is None where it cannot be told."""

    line: int | None
    key: str
    what: str
    hint: str = ""

    def render(self, path: Path) -> str:
        """`file:line: key: what; hint`."""
        where = f"{path}:{self.line}" if self.line else f"{path}"
        text = f"{where}: {self.key}: {self.what}" if self.key else f"{where}: {self.what}"
        return f"{text}; {self.hint}" if self.hint else text


class ConfigError(WatchdogError):
    """Every mistake found in one config file, a line each."""

    exit_code = 3

    def __init__(self, path: Path, mistakes: Sequence[Mistake]) -> None:
        self.path = path
        self.mistakes = tuple(sorted(mistakes, key=lambda m: (m.line or 0, m.key)))
        super().__init__("\n".join(m.render(path) for m in self.mistakes))


class UnknownVnodeError(WatchdogError):
    """No vnode of that id or name is configured."""

    exit_code = 4


class ModuleError(WatchdogError):
    """kmb.ko is missing, does not load or does not unload."""

    exit_code = 5


class RefusedError(WatchdogError):
    """The daemon understood and will not do it."""

    exit_code = 6


class NoDaemonError(RefusedError):
    """Nobody listens on the control socket."""


class AlreadyRunningError(RefusedError):
    """Another daemon owns the machine."""


class TimedOutError(WatchdogError):
    """It did not happen in the time given."""

    exit_code = 7

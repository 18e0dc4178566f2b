# SPDX-License-Identifier: GPL-2.0-or-later
"""Why the dashboard cannot start; each error is one line with its exit code."""


class TuiError(Exception):
    """The dashboard cannot start, or a file of its own is wrong."""

    exit_code = 1


class NotATerminal(TuiError):
    """There is no terminal to draw on."""

    exit_code = 2


class WrongKeys(TuiError):
    """The file of keys names an action or a key that there is not."""

    exit_code = 3


class NoWebServer(TuiError):
    """textual-serve is not installed, or its port is taken."""

    exit_code = 5

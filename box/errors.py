# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of the box; `exit_code` follows the table in docs/commands.md.

BoxError                1
  BuildFailed           1  a build step failed; its log is named
  BootFailed            1  QEMU ended or the guest gave up
  BadOption             2
  HostLacks             5  a program, a package, memory
  Refused               6  already running, not running, port taken
  BoxTimeout            7
"""

from __future__ import annotations


class BoxError(Exception):
    """One line: what, where, what to do."""

    exit_code = 1


class BuildFailed(BoxError):
    """A build step ended with an error."""


class BootFailed(BoxError):
    """The machine ended before its root vnode was ready."""


class BadOption(BoxError):
    """An option of the box has a value it cannot have."""

    exit_code = 2


class HostLacks(BoxError):
    """The host lacks a program, a package, memory or a right."""

    exit_code = 5


class Refused(BoxError):
    """The box is in a state that does not allow this."""

    exit_code = 6


class BoxTimeout(BoxError):
    """The box did not answer in time."""

    exit_code = 7

# SPDX-License-Identifier: GPL-2.0-or-later
"""The error tree of this package.

CrashdumpError
 +- DiskFull            no room, before or during the writing
 +- BadSegment          memory segments overlap or are misaligned
 +- SourceLost          the memory to dump is no longer that of the incident
 +- StoreError          the incident store cannot be used
     +- NoSuchIncident  no incident of that number

Each text is one line that says what, where and what to do.
"""


class CrashdumpError(Exception):
    """Root of the tree; ``exit_code`` is what a command line tool ends with."""

    exit_code = 1


class DiskFull(CrashdumpError):
    exit_code = 8


class BadSegment(CrashdumpError):
    exit_code = 1


class SourceLost(CrashdumpError):
    exit_code = 1


class StoreError(CrashdumpError):
    exit_code = 1


class NoSuchIncident(StoreError):
    exit_code = 4

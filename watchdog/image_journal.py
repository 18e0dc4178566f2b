# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the images lie, for the daemon that takes over after a kill -9.

In the run directory, which is in memory and gone after a reboot, as the images are.  It is the
root's own word: memory that a vnode has had is never searched for an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from adeos.abi import Range
from crashdump.files import replace_file


class Entry(msgspec.Struct, frozen=True):
    """`region`: of the vnode; `place`: the image's; `sha256`: its header's digest, hex."""

    vnode: int
    region: Range
    place: Range
    sha256: str


class ImageJournal:
    """One small file, replaced whole."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "images.json"

    def read(self) -> list[Entry]:
        """What an earlier daemon kept; OSError, or ValueError for a damaged file."""
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=list[Entry])
        except FileNotFoundError:
            return []

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace it.  OSError, DiskFull."""
        replace_file(self.file, msgspec.json.encode(list(entries)), sync=False)

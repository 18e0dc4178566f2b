# SPDX-License-Identifier: GPL-2.0-or-later
"""Where slots outlive the daemon: `slots/ID.json`, and copies of the images beside them.

Copies are made as soon as a vnode has two slots in use: the image to fall back
to must not depend on a file that an upgrade replaces.  Each file is replaced
atomically.  Blocks: call it in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from adeos.loader import Image
from crashdump.files import replace_file
from kexec_restart.images import Stage
from kexec_restart.slots import NAMES, Health, Slots
from watchdog.paths import private_dir


class Shelf:
    """Slots and images in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.images = directory / "images"
        self._lock = threading.Lock()

    def load(self, vnode: int) -> Slots | None:
        """What is known of a vnode's slots, None when nothing is.

        OSError, or ValueError (msgspec.DecodeError is one) for a damaged file.
        """
        try:
            slots = msgspec.json.decode(self._file(vnode).read_bytes(), type=Slots)
        except FileNotFoundError:
            return None
        if slots.first not in NAMES or slots.running not in ("", *NAMES):
            raise ValueError(f"slots {slots.first[:9]!r}, {slots.running[:9]!r} are none")
        return slots

    def vnodes(self) -> list[int]:
        """The vnodes that have slots."""
        names = (path.stem for path in self.directory.glob("*.json"))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def save(self, vnode: int, slots: Slots) -> None:
        """On the disk when this returns; OSError or DiskFull."""
        private_dir(self.directory)
        data = msgspec.json.format(msgspec.json.encode(slots)) + b"\n"
        with self._lock:
            replace_file(self._file(vnode), data, sync=True)

    def copy(self, slots: Slots, stage: Stage) -> None:
        """Copy the images of slots that are both in use, unless they are copied already."""
        used = [slots.get(name) for name in NAMES if slots.get(name).health is not Health.EMPTY]
        if len(used) < 2:
            return
        private_dir(self.images)
        for slot in used:
            self._copy(stage.get(slot.spec))

    def _copy(self, image: Image) -> None:
        for digest, data in (
            (image.kernel_sha256, image.kernel),
            (image.initrd_sha256, image.initrd),
        ):
            path = self.images / digest
            if not path.exists() or path.stat().st_size != len(data):
                replace_file(path, data, sync=True)

    def sweep(self, everyones: Iterable[Slots]) -> None:
        """Remove copies that are in no slot."""
        used = {
            digest
            for slots in everyones
            for name in NAMES
            for digest in slots.get(name).spec.digests
        }
        if self.images.is_dir():
            for path in self.images.iterdir():
                if path.name not in used:
                    path.unlink(missing_ok=True)

    def _file(self, vnode: int) -> Path:
        return self.directory / f"{vnode}.json"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Images staged ahead: each kernel, initrd and command line is read once and kept in memory.

A restart then reads no disk, and replacing a file under a running vnode
changes nothing until the daemon is started anew.  The digests taken at staging
are checked again between any two starts: a wild write of a vnode may have hit
the root.  Limit: the check is made ahead, so damage done after it goes unseen.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

from adeos.errors import ImageError
from adeos.loader import Image


class Spec(NamedTuple):
    """What a vnode boots; `initrd` may be empty."""

    kernel: str
    initrd: str
    cmdline: str


class Stage:
    """Images by what they are made of.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._images: dict[Spec, Image] = {}
        self._fresh: set[Spec] = set()
        self._lock = threading.Lock()

    def get(self, spec: Spec) -> Image:
        """The image, staged at the first call.  ImageError says which file is wrong."""
        with self._lock:
            image = self._images.get(spec)
            if image is None:
                image = self._images[spec] = _read(spec, self._images)
                self._fresh.add(spec)  # its digests were taken this moment
            return image

    def refresh(self, spec: Spec) -> None:
        """Check the digests ahead, in idle time: SHA-256 of 16 MiB takes 0.2 s under emulation.

        ImageError for an altered image, which is forgotten and read anew at the next use.
        """
        image = self.get(spec)
        try:
            image.verify()
        except ImageError:
            self.forget(spec)
            raise
        with self._lock:
            self._fresh.add(spec)

    def take(self, spec: Spec) -> Image:
        """The image for one start, its digests checked since the last one."""
        image = self.get(spec)
        if spec not in self._fresh:
            self.refresh(spec)
        with self._lock:
            self._fresh.discard(spec)
        return image

    def forget(self, spec: Spec) -> None:
        """Read the files again at the next use."""
        with self._lock:
            self._images.pop(spec, None)
            self._fresh.discard(spec)


def _read(spec: Spec, known: dict[Spec, Image]) -> Image:
    """Read the files; bytes that are staged already for another vnode are shared."""
    image = Image.stage(Path(spec.kernel), Path(spec.initrd) if spec.initrd else None, spec.cmdline)
    for other in known.values():
        if other.kernel_sha256 == image.kernel_sha256:
            image = image._replace(kernel=other.kernel)
        if other.initrd_sha256 == image.initrd_sha256:
            image = image._replace(initrd=other.initrd)
    return image

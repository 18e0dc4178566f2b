# SPDX-License-Identifier: GPL-2.0-or-later
"""Images staged ahead: each kernel, initrd and command line is read once and kept in memory.

A restart then reads no disk, and replacing a file under a running vnode
changes nothing.  The digests taken at staging are checked again between any
two starts: a wild write of a vnode may have hit the root.  Limit: the check is
made ahead, so damage done after it goes unseen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from adeos.errors import ImageError
from adeos.loader import Image


class Spec(NamedTuple):
    """What a vnode boots; `initrd` may be empty, and so may digests that are not known yet."""

    kernel: str
    initrd: str
    cmdline: str
    kernel_sha256: str = ""
    initrd_sha256: str = ""
    unpacked: bool = False
    """The kernel is unpacked when it is staged, not at every boot."""

    @property
    def digests(self) -> tuple[str, str]:
        """Of the files, kernel and initrd."""
        return self.kernel_sha256, self.initrd_sha256


_Signature = tuple[tuple[int, int, int], ...]


class Stage:
    """Images by what they are made of.  Safe to use from several threads.

    `copies`: a directory of files named by their SHA-256, for images whose own files were replaced.
    `unpack`: the vmlinux in a bzImage that is called so (ImageError).
    """

    def __init__(
        self, copies: Path | None = None, unpack: Callable[[bytes, str], bytes] | None = None
    ) -> None:
        self.copies = copies
        self.unpack = unpack
        self._images: dict[Spec, Image] = {}
        self._fresh: set[Spec] = set()
        self._added: dict[Spec, tuple[_Signature, Spec]] = {}
        self._lock = threading.Lock()

    def get(self, spec: Spec) -> Image:
        """The image, staged at the first call.  ImageError says which file is wrong."""
        with self._lock:
            image = self._images.get(spec)
            if image is None:
                image = self._images[spec] = self._read(spec)
                self._fresh.add(spec)  # its digests were taken this moment
            return image

    def add(self, spec: Spec) -> Spec:
        """Read files whose digests are not known; the same with digests.

        Files that are as they were when they were read (inode, size, time) are not read again.
        """
        signature = _signature(spec)
        before = self._added.get(spec)
        if before is not None and before[0] == signature and before[1] in self._images:
            with self._lock:
                self._fresh.discard(before[1])  # read long ago
            return before[1]
        image = self.get(spec)
        known = spec._replace(kernel_sha256=image.kernel_sha256, initrd_sha256=image.initrd_sha256)
        with self._lock:
            self._images[known] = self._images.pop(spec, image)
            self._fresh.discard(spec)
            self._fresh.add(known)
            self._added[spec] = signature, known
        return known

    def replaced(self, spec: Spec) -> bool:
        """Whether files that `add` has read are others by now; what is in them it would tell."""
        before = self._added.get(spec)
        return before is not None and before[0] != _signature(spec)

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

    def fresh(self, spec: Spec) -> bool:
        """Whether `take` has nothing to check."""
        return spec in self._fresh

    def forget(self, spec: Spec) -> None:
        """Read the files again at the next use."""
        with self._lock:
            self._images.pop(spec, None)
            self._fresh.discard(spec)

    def keep_only(self, specs: Iterable[Spec]) -> None:
        """Give back the memory of all others."""
        wanted = set(specs)
        with self._lock:
            self._images = {spec: one for spec, one in self._images.items() if spec in wanted}
            self._fresh &= wanted

    def _read(self, spec: Spec) -> Image:
        """Read the files; bytes that are staged already for another vnode are shared."""
        image = _from_files(spec)
        if isinstance(image, ImageError):
            image = _from_copies(spec, self.copies, image)
        for other in self._images.values():
            if other.kernel_sha256 == image.kernel_sha256:
                image = image._replace(kernel=other.kernel)
                if spec.unpacked and other.flat is not None:
                    image = image._replace(flat=other.flat, flat_sha256=other.flat_sha256)
            if other.initrd_sha256 == image.initrd_sha256:
                image = image._replace(initrd=other.initrd)
        if spec.unpacked and image.flat is None:
            assert self.unpack is not None
            image = image.unpacked(self.unpack(image.kernel, image.name))
        return image


def _signature(spec: Spec) -> _Signature:
    """What changes when one of the files does; empty, and like no other, when one is missing."""
    try:
        stats = [Path(name).stat() for name in (spec.kernel, spec.initrd) if name]
    except OSError:
        return ((0, 0, time.monotonic_ns()),)
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in stats)


def _from_files(spec: Spec) -> Image | ImageError:
    """The image that the files hold, the error when it is not the one staged."""
    initrd = Path(spec.initrd) if spec.initrd else None
    try:
        image = Image.stage(Path(spec.kernel), initrd, spec.cmdline)
    except ImageError as error:
        if not spec.kernel_sha256:
            raise
        return error
    for name, found, wanted in (
        (spec.kernel, image.kernel_sha256, spec.kernel_sha256),
        (spec.initrd, image.initrd_sha256, spec.initrd_sha256),
    ):
        if wanted and found != wanted:
            return ImageError(f"{name} is not the file that was staged", "stage it again")
    return image


def _from_copies(spec: Spec, copies: Path | None, why: ImageError) -> Image:
    """The image from the copies of its files; `why` when they are not there, or not it."""
    if copies is None:
        raise why
    try:
        kernel = (copies / spec.kernel_sha256).read_bytes()
        initrd = (copies / spec.initrd_sha256).read_bytes() if spec.initrd else b""
    except OSError:
        raise why from None
    image = Image.of(kernel, initrd, spec.cmdline, spec.kernel)
    if (image.kernel_sha256, image.initrd_sha256) != spec.digests:
        raise why
    return image

# SPDX-License-Identifier: GPL-2.0-or-later
"""The image of a frozen vnode: what is needed to set it going again without booting.

It lies in memory that no vnode is given: a header, the page map (runs of pages that were in use), a
CRC-32 for each group of 64 KiB, the pages.  The header's SHA-256 covers header, map and sums, and
these cover the pages, so it is the checksum of the whole.  How to resume (page tables, entry, CR4)
is kept here alone, never in the vnode's memory: with it a bad image could jump anywhere.

Limits: sums find accidents, not malice.  An image fits one region, slot, set of CPUs, kernel,
initrd and command line, and one boot of the root.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from adeos import abi
from adeos.abi import Range
from adeos.copying import move
from adeos.errors import WarmImageError

PAGE: Final = 0x1000
GROUP: Final = 0x10000
MAGIC: Final = b"VNDWARM1"
_HEAD: Final = struct.Struct("<8sIIQQQQ16I32sQQQQQQQ32s")
_RUN: Final = struct.Struct("<II")
_SPAN: Final = struct.Struct("<" + abi.SPAN.format)  # without a KmbSpan for each
_BRIDGE: Final = (abi.VN_OFF_BRIDGE // PAGE, abi.VN_OFF_RAM // PAGE)
_SLOT_FIRST: Final = abi.VN_SLOT_PAGE_TABLES // PAGE
"""Before it lies kmb.ko's trampoline."""


class Identity(NamedTuple):
    """What an image belongs to; all of it must be equal when it is used."""

    vnode: int
    region: Range
    slot: Range
    apicids: tuple[int, ...]
    boots: bytes
    """SHA-256 of what the vnode boots, and of the root's own boot."""


class Resume(NamedTuple):
    """What Machine.resume needs, and when the vnode was frozen: TSC, Unix time in ns."""

    cr3: int
    entry: int
    cr4: int
    frozen_tsc: int
    frozen_ns: int


class Run(NamedTuple):
    """`pages` pages from page `first` on; the slot's pages follow the region's."""

    first: int
    pages: int


def runs_in_use(free: bytes, region: Range, slot: Range) -> list[Run]:
    """Pages to keep, by the vnode's own map of its free pages (a bit a page of the region)."""
    pages = region.size // PAGE
    word = int.from_bytes(free[: -(-pages // 8)], "little")
    bits = f"{word:0{pages}b}"[::-1][:pages]
    start, end = _BRIDGE
    bits = bits[:start] + "1" * (end - start) + bits[end:]
    runs = [Run(m.start(), m.end() - m.start()) for m in re.finditer("0+", bits)]
    return [*runs, Run(pages + _SLOT_FIRST, slot.size // PAGE - _SLOT_FIRST)]


def _data_at(nruns: int, ngroups: int) -> int:
    return -(-(_HEAD.size + nruns * _RUN.size + 4 * ngroups) // PAGE) * PAGE


def _groups(npages: int) -> int:
    return -(-npages * PAGE // GROUP)


def size_of(runs: Sequence[Run]) -> int:
    """Bytes that an image of these pages takes."""
    npages = sum(run.pages for run in runs)
    return _data_at(len(runs), _groups(npages)) + npages * PAGE


class Place(NamedTuple):
    """Part of an image and where it belongs: in the region, or in the slot."""

    slot: bool
    offset: int
    at: int
    """In the image."""
    size: int


class WarmImage:
    """A checked image over `view`, which is writable."""

    def __init__(
        self, view: memoryview, identity: Identity, resume: Resume, runs: Sequence[Run]
    ) -> None:
        self.view = view
        self.identity = identity
        self.resume = resume
        self.runs = tuple(runs)
        self.npages = sum(run.pages for run in runs)
        self.ngroups = _groups(self.npages)
        self.data = _data_at(len(runs), self.ngroups)
        self._sums = _HEAD.size + len(runs) * _RUN.size
        self.spans = self._spans()
        """Where the region's pages lie in the image, for Machine.put_back."""

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return self.data + self.npages * PAGE

    @property
    def sha256(self) -> str:
        """The header's digest as it stands, hex; it covers all."""
        return bytes(self.view[_HEAD.size - 32 : _HEAD.size]).hex()

    @classmethod
    def capture(
        cls,
        view: memoryview,
        identity: Identity,
        resume: Resume,
        runs: Sequence[Run],
        region: memoryview,
        slot: memoryview,
    ) -> WarmImage:
        """Copy a parked vnode's memory; the header comes last, so half an image is none."""
        image = cls(view, identity, resume, runs)
        if image.size > len(view):
            raise WarmImageError(f"an image of {image.size:#x} bytes into {len(view):#x}")
        view[: len(MAGIC)] = bytes(len(MAGIC))
        for place in image.places():
            source = slot if place.slot else region
            move(view, place.at, source, place.offset, place.size)
        for n, run in enumerate(runs):
            _RUN.pack_into(view, _HEAD.size + n * _RUN.size, *run)
        for group in range(image.ngroups):
            struct.pack_into("<I", view, image._sums + 4 * group, image._sum(group))
        view[: _HEAD.size] = image._header(image._digest())
        return image

    @classmethod
    def open(cls, view: memoryview, identity: Identity) -> WarmImage:
        """The image at `view`, when header, map and sums are whole and it is of `identity`."""
        head = _HEAD.unpack_from(view, 0)
        vnode, ncpus, nruns = head[1], head[2], head[30]
        if head[0] != MAGIC or not 0 < ncpus <= abi.VN_MAX_CPUS:
            raise WarmImageError("there is no image", "freeze the vnode")
        table = _HEAD.size + nruns * _RUN.size
        if table > len(view):
            raise _damaged("its page map does not end")
        runs = [Run(*pair) for pair in _RUN.iter_unpack(view[_HEAD.size : table])]
        found = Identity(vnode, Range(*head[3:5]), Range(*head[5:7]), head[7 : 7 + ncpus], head[23])
        image = cls(view, found, Resume(*head[24:29]), runs)
        if image.size > len(view) or head[29] != image.npages:
            raise _damaged("its size does not fit its page map")
        image.check_header(identity)
        image._check_runs()
        return image

    def check_header(self, identity: Identity) -> None:
        """Whether header, map and sums are those that were opened, and of `identity`.

        Takes a millisecond, so it is done at every use.
        """
        digest = self._digest()
        if self._header(digest) != self.view[: _HEAD.size]:
            raise _damaged("header, page map or sums have changed")
        if self.identity != identity:
            one = self.identity
            raise WarmImageError(
                f"the image is of vnode {one.vnode} at {one.region.base:#x} as it was booted then",
                "freeze the vnode anew",
            )

    def verify(self) -> None:
        """Check every group of pages.  WarmImageError."""
        for group in range(self.ngroups):
            (kept,) = struct.unpack_from("<I", self.view, self._sums + 4 * group)
            if self._sum(group) != kept:
                raise _damaged(f"pages at {group * GROUP:#x} have changed")

    def places(self) -> Iterator[Place]:
        """All parts, by address, GROUP bytes at most."""
        border = self.identity.region.size
        for start, at, size in self._parts():
            in_slot = start >= border
            offset = start - border if in_slot else start
            for done in range(0, size, GROUP):
                yield Place(in_slot, offset + done, at + done, min(GROUP, size - done))

    def _spans(self) -> bytes:
        border = self.identity.region.size
        return b"".join(_SPAN.pack(*part) for part in self._parts() if part[0] < border)

    def _parts(self) -> Iterator[tuple[int, int, int]]:
        """Of each run: where it begins in region and slot, where in the image, bytes."""
        at = self.data
        for run in self.runs:
            size = run.pages * PAGE
            yield run.first * PAGE, at, size
            at += size

    def slot_places(self) -> Iterator[Place]:
        """The parts that belong in the slot."""
        at, border = self.size, self.identity.region.size
        for run in reversed(self.runs):
            start, size = run.first * PAGE, run.pages * PAGE
            if start < border:
                return
            at -= size
            yield Place(True, start - border, at, size)

    def _sum(self, group: int) -> int:
        start = self.data + group * GROUP
        return zlib.crc32(self.view[start : min(start + GROUP, self.size)])

    def _digest(self) -> bytes:
        digest = hashlib.sha256(self._header(bytes(32)))
        digest.update(self.view[_HEAD.size : self._sums + 4 * self.ngroups])
        return digest.digest()

    def _header(self, digest: bytes) -> bytes:
        one = self.identity
        apicids = (*one.apicids, *[0] * (abi.VN_MAX_CPUS - len(one.apicids)))
        who = (one.vnode, len(one.apicids), *one.region, *one.slot, *apicids, one.boots)
        return _HEAD.pack(MAGIC, *who, *self.resume, self.npages, len(self.runs), digest)

    def _check_runs(self) -> None:
        """A whole header may still be a wrong one: nothing but the vnode's own is written."""
        border, end = self.identity.region.size // PAGE, 0
        last = border + self.identity.slot.size // PAGE
        forbidden = (_BRIDGE, (border, border + _SLOT_FIRST))
        for first, count in self.runs:
            after = first + count
            crosses = first < border < after
            inside = any(first < stop and start < after for start, stop in forbidden)
            if first < end or not count or after > last or crosses or inside:
                raise _damaged(f"its page map has {count} pages at {first:#x}")
            end = after


def _damaged(what: str) -> WarmImageError:
    return WarmImageError(f"the image is damaged: {what}", "freeze the vnode anew")

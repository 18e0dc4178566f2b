# SPDX-License-Identifier: GPL-2.0-or-later
"""The images of frozen vnodes: which there are, and the memory they lie in.

What an image's header says was checked when it was kept, and is checked again at each use.

An image is of one vnode in one region.  Used on the event loop's thread, but for `capture`, which
takes long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adeos import abi
from adeos.abi import Range
from adeos.errors import AdeosError, WarmImageError
from crashdump.capture import boot_id
from crashdump.errors import DiskFull
from kexec_restart import slots as slotting
from kexec_restart.warm_image import Identity, Resume, WarmImage, runs_in_use, size_of
from watchdog import log, paths
from watchdog.composer import Composer, spec_in
from watchdog.image_journal import Entry, ImageJournal
from watchdog.placement import Placement
from watchdog.unit import Unit


@dataclass
class Kept:
    """`place`: where the image lies; `checked`: its pages, since it was used last."""

    vnode: int
    region: Range
    place: Range
    image: WarmImage
    checked: bool = True
    intact: bool = False
    """The region holds just what the image does, as far as anybody knows."""


class ImageStore:
    """Images by vnode and region."""

    def __init__(self, placement: Placement, composer: Composer) -> None:
        self.machine = placement.machine
        self.placement = placement
        self.composer = composer
        self.journal = ImageJournal(paths.run_dir())
        self._kept: dict[tuple[int, Range], Kept] = {}

    def get(self, vnode: int, region: Range | None) -> Kept | None:
        """The image of a vnode in a region."""
        return self._kept.get((vnode, region)) if region is not None else None

    def of(self, vnode: int) -> list[Kept]:
        """All images of a vnode."""
        return [kept for kept in self._kept.values() if kept.vnode == vnode]

    def __iter__(self) -> Iterator[Kept]:
        return iter(tuple(self._kept.values()))

    def identity(self, unit: Unit) -> Identity:
        """What an image of the vnode, as it is placed now, belongs to."""
        region, slot = unit.region, unit.slot
        assert region is not None and slot is not None
        image = self.composer.stage.get(spec_in(unit, slotting.choose(unit.vnode.slots)))
        words = (*image.digests, image.cmdline, boot_id())
        boots = hashlib.sha256("\0".join(words).encode()).digest()
        return Identity(unit.id, region, slot, unit.apicids, boots)

    def reserve(self, unit: Unit) -> tuple[Range, bytes]:
        """Memory for an image of the frozen vnode, and the map of its free pages.  PoolExhausted.

        An older image of the same region is given up: it is being replaced.
        """
        assert unit.bridge is not None and unit.region is not None and unit.slot is not None
        self.forget(unit.id, unit.region)
        free = unit.bridge.free_pages()
        size = size_of(runs_in_use(free, unit.region, unit.slot))
        return self.placement.take(max(size, abi.VN_REGION_MIN)), free

    def capture(self, unit: Unit, place: Range, free: bytes, resume: Resume) -> Kept:
        """Copy the frozen and parked vnode's memory to `place`; takes some 0.2 s."""
        region, slot = unit.region, unit.slot
        assert region is not None and slot is not None
        self.composer.taken(place)
        view = self.machine.view
        identity = self.identity(unit)
        image = WarmImage.capture(
            view(place.base, place.size, writable=True),
            identity,
            resume,
            runs_in_use(free, region, slot),
            view(region.base, region.size, writable=True),
            view(slot.base, slot.size, writable=True),
        )
        return Kept(unit.id, region, place, WarmImage.open(image.view, identity))

    def keep(self, kept: Kept) -> None:
        """From now on the image counts."""
        self._kept[kept.vnode, kept.region] = kept
        self._note()

    def forget(self, vnode: int, region: Range) -> None:
        """Give an image up, and its memory back."""
        kept = self._kept.pop((vnode, region), None)
        if kept is not None:
            self._note()  # before anybody else can be given the memory
            self.placement.pool.free_region(kept.place)

    def find(self, units: Mapping[int, Unit]) -> list[Kept]:
        """Take over what an earlier daemon kept, once all running vnodes have their memory.

        Regions other than a vnode's own are taken from the pool; the pages are not checked yet.
        """
        try:
            entries = self.journal.read()
        except (OSError, ValueError) as error:
            log.write("warning", "images-dropped", what=f"{self.journal.file}: {error}")
            entries = []
        found = []
        for entry in entries:
            try:
                found.append(self._find(entry, units.get(entry.vnode)))
            except AdeosError as error:
                log.write("warning", "image-dropped", vnode=entry.vnode, what=error)
        self._kept |= {(kept.vnode, kept.region): kept for kept in found}
        self._note()
        return found

    def _find(self, entry: Entry, unit: Unit | None) -> Kept:
        if unit is None or unit.region is None or unit.slot is None:
            raise WarmImageError(f"vnode {entry.vnode} does not run", "start it")
        pool, region = self.placement.pool, entry.region
        pool.region(entry.place.size, entry.place.base)
        taken = [entry.place]
        try:
            if region != unit.region and region not in self.placement.held:
                pool.region(region.size, region.base)
                taken.append(region)
            self.composer.taken(entry.place)
            view = self.machine.view(entry.place.base, entry.place.size, writable=True)
            identity = self.identity(unit)._replace(region=region)
            image = WarmImage.open(view, identity)
            if image.sha256 != entry.sha256:
                raise WarmImageError("the image is another than was kept", "freeze the vnode anew")
        except BaseException:
            for one in taken:
                pool.free_region(one)
            raise
        return Kept(unit.id, region, entry.place, image, checked=False)

    def _note(self) -> None:
        entries = [
            Entry(kept.vnode, kept.region, kept.place, kept.image.sha256)
            for kept in self._kept.values()
        ]
        try:
            self.journal.write(entries)
        except (OSError, DiskFull) as error:
            log.write("warning", "image-journal", what=error)

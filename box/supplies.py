# SPDX-License-Identifier: GPL-2.0-or-later
"""What a box boots besides the cached images: modules, kernels, byte code, the state disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from box import cache, kernels, rootfs
from box.errors import BoxError


def modules(images: Sequence[kernels.KernelImage], progress: cache.Progress) -> None:
    """Calls script/modules; when it fails, modules of an earlier run have to do."""
    script = cache.REPOSITORY / "script" / "modules"
    if not script.exists():
        return
    for version in dict.fromkeys(image.version for image in images):
        progress(f"modules for {version}")
        try:
            cache.run(f"modules for {version}", [script, version], timeout=600)
        except BoxError as error:
            if not (cache.REPOSITORY / "build/modules" / version / "kmb.ko").exists():
                raise
            progress(f"{error}; going on with the modules that were built before")


def show_kernels(images: Sequence[kernels.KernelImage]) -> None:
    """Shows the kernels in build/boot, which the box links into its /boot."""
    for image in images:
        for source in (image.vmlinuz, image.system_map, image.config):
            cache.place(source, cache.REPOSITORY / "build/boot" / source.name)


def byte_code() -> None:
    """Byte code beside the sources: the box sees them read-only and compiles 12 times slower."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != rootfs.PYTHON:
        return
    folders = [path.parent for path in cache.REPOSITORY.glob("*/__init__.py")]
    launcher = list(cache.REPOSITORY.glob("vnode_debug.py"))
    argv = [sys.executable, "-m", "compileall", "-q", *map(str, [*folders, *launcher])]
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)


def state_disk(path: Path, size: int, fresh: bool) -> None:
    """The writable disk; made in a second file so that a half-made one is never used."""
    if path.exists() and not fresh:
        return
    spare = path.with_suffix(".new")
    spare.unlink(missing_ok=True)
    with spare.open("wb") as file:
        file.truncate(size)
    argv = [cache.program("mkfs.ext4", "e2fsprogs"), "-q", "-F", "-m", "0", "-L", "state"]
    argv += ["-E", "lazy_itable_init=1,lazy_journal_init=1", str(spare)]
    cache.run("state disk", argv, timeout=120)
    spare.rename(path)

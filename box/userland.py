# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian for vnodes: build/vnode-debian.cpio, the root's images in an initrd of their own.

A vnode has no device, so all it needs comes with it: the two images of box/rootfs.py, this toolkit
as a third, and the modules that mount them, for each kernel.  Not compressed, as the images are.
Limit: the initrd stays in the vnode's memory, 125 MB of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from box import cache, cpio, initramfs, kernels, layout, rootfs

MODULES = ["loop", "squashfs", "overlay"]
DEBIAN_INITRD = cache.REPOSITORY / "build" / Path(layout.DEBIAN_INITRD).name
LAUNCHER = "vnode_debug.py"
NOT_PACKED = {"tests", "bench"}


def toolkit(progress: cache.Progress) -> Path:
    """The image with this checkout's Python, for /opt/vnode-debug, where the root has it too."""
    sources = _sources()
    flat = [word for path in sources for word in (str(path), _read(path))]
    name = f"toolkit-{cache.digest(rootfs.PYTHON, *flat, *rootfs.SQUASH)}.squashfs"

    def build(scratch: Path) -> Path:
        progress("Debian of the vnodes: packing the toolkit")
        tree = scratch / "tree"
        for path in sources:
            target = tree / layout.TREE.lstrip("/") / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cache.REPOSITORY / path, target)
        rootfs.compile_all(tree)
        return rootfs.squash(tree, scratch / "toolkit.squashfs")

    return cache.entry(name, build)


def _sources() -> list[Path]:
    """The packages' files and the launcher, relative to the checkout."""
    folders = [path.parent for path in cache.REPOSITORY.glob("*/__init__.py")]
    found = [cache.REPOSITORY / LAUNCHER]
    for folder in folders:
        if folder.name not in NOT_PACKED:
            found += folder.rglob("*.py")
    return sorted(path.relative_to(cache.REPOSITORY) for path in found)


def _read(path: Path) -> bytes:
    return (cache.REPOSITORY / path).read_bytes()


def debian_initrd(images: Sequence[kernels.KernelImage], progress: cache.Progress) -> Path:
    """Builds build/vnode-debian.cpio for these kernels."""
    parts = initramfs.agent_parts()
    parts["bin/busybox"] = initramfs.busybox()
    for script in ("init", "rc", "inittab", "profile"):
        parts[f"guest/{script}"] = (initramfs.GUEST / f"debian-{script}").read_bytes()
    for image in images:
        order = image.load_order(MODULES)
        for path in order:
            plain = path.name.removesuffix(".xz")
            parts[f"modules/{image.version}/{plain}"] = kernels.module_bytes(path)
        names = "".join(f"{path.name.removesuffix('.xz')}\n" for path in order)
        parts[f"modules/{image.version}/order"] = names.encode()
    layers = {
        "debian": rootfs.debian(progress),
        "python": rootfs.python_packages(progress),
        "toolkit": toolkit(progress),
    }
    flat = [item for name, data in sorted(parts.items()) for item in (name, data)]
    name = f"vnode-debian-{cache.digest(*flat, *(path.name for path in layers.values()))}.cpio"

    def build(scratch: Path) -> Path:
        progress("Debian of the vnodes: packing the initrd")
        out = scratch / "vnode-debian.cpio"
        out.write_bytes(_pack(parts, layers))
        return out

    cache.place(cache.entry(name, build), DEBIAN_INITRD)
    return DEBIAN_INITRD


def _pack(parts: dict[str, bytes], layers: dict[str, Path]) -> bytes:
    archive = cpio.Archive()
    for directory in (
        "proc",
        "sys",
        "dev",
        "upper",
        "root",
        *(f"layers/{name}" for name in layers),
    ):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    for name, path in layers.items():
        archive.file(f"images/{name}", path.read_bytes())
    for name, data in parts.items():
        if name.startswith("guest/"):
            continue
        archive.file(name, data, 0o755 if name.startswith("bin/") else 0o644)
    archive.file("init", parts["guest/init"], 0o755)
    for target, source, mode in (
        ("etc/rc.vnode", "rc", 0o755),
        ("etc/inittab", "inittab", 0o644),
        ("etc/profile.d/vnode.sh", "profile", 0o644),
    ):
        archive.file(f"own/{target}", parts[f"guest/{source}"], mode)
    archive.file(
        "own/usr/local/bin/vnode-debug", (initramfs.GUEST / "vnode-debug").read_bytes(), 0o755
    )
    archive.file("own/usr/local/lib/busybox/busybox", parts["bin/busybox"], 0o755)
    archive.symlink("own/usr/local/lib/busybox/init", "busybox")
    for applet in ("poweroff", "reboot"):  # what the kernel calls for an orderly end
        archive.symlink(f"own/usr/sbin/{applet}", "/usr/local/lib/busybox/busybox")
    return archive.finish()

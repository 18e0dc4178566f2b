# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs images: the root vnode's, and build/vnode.cpio.gz for the other vnodes.

The root's has two parts, laid one after the other as the kernel allows: modules and busybox,
which depend on the kernel only (cached), and a few files of this one box (keys, config, scripts).
"""

from __future__ import annotations

import gzip
import shlex
from pathlib import Path

from box import cache, cpio, kernels, layout

GUEST = Path(__file__).parent / "guest"
ROOT_MODULES = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtiofs",
    "squashfs",
    "overlay",
    "ext4",
]
VNODE_INITRD = cache.REPOSITORY / "build" / "vnode.cpio.gz"


def busybox() -> bytes:
    """Debian's static busybox of the host."""
    return Path(cache.program("busybox", "busybox-static")).read_bytes()


def root_archive(kernel: kernels.KernelImage) -> Path:
    """The cached part: busybox, modules in load order, the first script."""
    script = (GUEST / "initramfs-init").read_bytes()
    program = busybox()
    name = f"initramfs-{cache.digest(kernel.version, kernel.tree.name, program, script)}.cpio"

    def build(scratch: Path) -> Path:
        archive = cpio.Archive()
        for directory in ("proc", "sys", "dev", "debian", "python", "upper", "root", "box"):
            archive.directory(directory)
        archive.character_device("dev/console", 5, 1)
        archive.file("bin/busybox", program, 0o755)
        archive.file("init", script, 0o755)
        order = []
        for path in kernel.load_order(ROOT_MODULES):
            plain = path.name.removesuffix(".xz")
            archive.file(f"modules/{plain}", kernels.module_bytes(path))
            order.append(plain)
        archive.file("modules/order", "".join(f"{name}\n" for name in order).encode())
        out = scratch / "initramfs.cpio"
        out.write_bytes(archive.finish())
        return out

    return cache.entry(name, build)


def box_archive(plan: layout.Layout, config: str, host_key: bytes, client_key: bytes) -> bytes:
    """Files of one box, copied over its Debian at each start.

    `config` is vnodes.toml, `host_key` sshd's private key, `client_key` the public key let in.
    """
    archive = cpio.Archive()
    for path, source, mode in (
        ("etc/rc.box", "rc", 0o755),
        ("etc/inittab", "inittab", 0o644),
        ("etc/ssh/sshd_config", "sshd_config", 0o644),
        ("usr/local/bin/vnode-debug", "vnode-debug", 0o755),
        ("usr/local/sbin/load-kmb", "load-kmb", 0o755),
        ("usr/local/sbin/box-poweroff", "box-poweroff", 0o755),
    ):
        archive.file(f"box/{path}", (GUEST / source).read_bytes(), mode)
    for applet in ("init", "poweroff", "reboot", "devmem"):
        archive.symlink(f"box/usr/local/lib/busybox/{applet}", "busybox")
    for path, data, mode in (
        ("etc/ssh/box_host_key", host_key, 0o600),
        ("etc/ssh/box_authorized_keys", client_key, 0o644),
        ("etc/hosts", b"127.0.0.1 localhost root\n", 0o644),
        ("etc/hostname", b"root\n", 0o644),
        ("etc/box.conf", f"BOX_CHECKOUT={shlex.quote(str(cache.REPOSITORY))}\n".encode(), 0o644),
        ("etc/vnode-debug/kmb.arguments", _line(plan.module_arguments), 0o644),
        ("etc/vnode-debug/vnodes.toml", config.encode(), 0o644),
    ):
        archive.file(f"box/{path}", data, mode)
    return archive.finish()


def _line(text: str) -> bytes:
    return f"{text}\n".encode() if text else b""


def agent_parts() -> dict[str, bytes]:
    """The agents that script/modules built, by their place in an initrd, and their programs."""
    build_tree = cache.REPOSITORY / "build"
    parts = {
        f"modules/{agent.parent.name}/vnode_agent.ko": agent.read_bytes()
        for agent in sorted((build_tree / "modules").glob("*/vnode_agent.ko"))
    }
    for name in ("vnode-beat", "vnode-ready"):
        program = build_tree / "user" / name
        if parts and program.exists():
            parts[f"bin/{name}"] = program.read_bytes()
    return parts


def extend(base: Path, more: cpio.Archive, target: Path) -> None:
    """An initrd with the files of a second archive, which win."""
    cache.write_atomically(target, base.read_bytes() + gzip.compress(more.finish(), 9, mtime=0))


def vnode_initrd(progress: cache.Progress) -> Path | None:
    """Builds build/vnode.cpio.gz from the agents built by script/modules; None without any.

    One image serves every kernel: its init picks the agent by uname -r.
    """
    parts = agent_parts()
    if not parts:
        return None
    parts["bin/busybox"] = busybox()
    parts["init"] = (GUEST / "vnode-init").read_bytes()
    flat = [item for name, data in parts.items() for item in (name, data)]

    def build(scratch: Path) -> Path:
        progress("initrd of the vnodes: packing")
        archive = cpio.Archive()
        for directory in ("proc", "sys", "dev", "root"):
            archive.directory(directory)
        archive.character_device("dev/console", 5, 1)
        archive.symlink("bin/sh", "busybox")
        for name, data in parts.items():
            archive.file(name, data, 0o644 if name.endswith(".ko") else 0o755)
        out = scratch / "vnode.cpio.gz"
        out.write_bytes(gzip.compress(archive.finish(), 9, mtime=0))
        return out

    cache.place(cache.entry(f"vnode-{cache.digest(*flat)}.cpio.gz", build), VNODE_INITRD)
    return VNODE_INITRD

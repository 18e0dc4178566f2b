# SPDX-License-Identifier: GPL-2.0-or-later
"""The root vnode's Debian, as two squashfs images that are laid over each other.

`debian()` is built by mmdebstrap from the lists below, `python_packages()` holds the wheels of
pyproject.toml's dependencies, so that a new dependency does not rebuild Debian.  Both are cached by
what they are made from; nothing of this checkout is in them.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from box import cache
from box.errors import HostLacks

SUITE = "bookworm"  # gdb 13.1, Python 3.11
PYTHON = "3.11"
PACKAGES = [
    "bash",
    "binutils",
    "e2fsprogs",
    "gdb",
    "iproute2",
    "kmod",
    "less",
    "makedumpfile",
    "openssh-server",
    "procps",
    "python3",
    "strace",
    "tmux",
    "zstd",
]
LEFT_OUT = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/var/lib/apt/lists/*",
    "/var/cache/apt/*",
]
EXTRA_WHEELS = ["drgn>=0.0.30"]
RECIPE = "2"  # raise it when the code below changes what comes out
SQUASH = ["-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-quiet", "-no-progress"]


def debian(progress: cache.Progress) -> Path:
    """The Debian image."""
    name = f"debian-{SUITE}-{cache.digest(RECIPE, SUITE, *PACKAGES, *LEFT_OUT, *SQUASH)}.squashfs"

    def build(scratch: Path) -> Path:
        progress(f"Debian {SUITE} with {len(PACKAGES)} packages: building, about a minute")
        tar, image = scratch / "base.tar", scratch / "base.squashfs"
        argv: list[str | Path] = [cache.program("mmdebstrap", "mmdebstrap"), "--variant=minbase"]
        argv += [f"--include={','.join(PACKAGES)}", "--skip=cleanup/reproducible"]
        argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT[:4]]
        argv += ['--customize-hook=chroot "$1" python3 -m compileall -q /usr/lib/python3 || true']
        argv += ['--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*']
        argv += [SUITE, tar, *_sources()]
        cache.run("Debian base", argv, timeout=1200)
        progress("Debian: packing the image")
        _squash_tar(tar, image)
        return image

    return cache.entry(name, build)


def python_packages(progress: cache.Progress) -> Path:
    """The image with the Python packages, for /usr/local/lib/python3.11/dist-packages."""
    project = tomllib.loads((cache.REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = sorted({*project["dependencies"], *EXTRA_WHEELS})
    name = f"python-{cache.digest(RECIPE, PYTHON, *wanted, *SQUASH)}.squashfs"

    def build(scratch: Path) -> Path:
        check_python()
        progress(f"Python packages for the box: fetching {len(wanted)} wheels and what they need")
        target = scratch / "tree/usr/local/lib" / f"python{PYTHON}" / "dist-packages"
        argv: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet"]
        argv += ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
        for platform in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"):
            argv.append(f"--platform={platform}")
        argv += ["--no-compile", "--target", target, *wanted]
        cache.run("Python packages", argv, timeout=900)
        compile_all(scratch / "tree")
        return squash(scratch / "tree", scratch / "python.squashfs")

    return cache.entry(name, build)


def _sources() -> list[str]:
    """apt sources for mmdebstrap: the host's Debian ones when it runs the same suite."""
    release = Path("/etc/os-release").read_text()
    if f"VERSION_CODENAME={SUITE}" not in release:
        return []
    files = [Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources")]
    return [str(file) for file in files if file.is_file() and file.stat().st_size]


def _squash_tar(tar: Path, image: Path) -> None:
    """Packs a tar as it is: owners and devices survive without being root."""
    tool = cache.program("mksquashfs", "squashfs-tools")
    script = 'exec "$0" - "$1" -tar "${@:3}" <"$2"'
    cache.run("Debian image", ["bash", "-c", script, tool, image, tar, *SQUASH], timeout=600)


def squash(tree: Path, image: Path) -> Path:
    """A squashfs of a directory, everything root's; `image`."""
    tool = cache.program("mksquashfs", "squashfs-tools")
    cache.run(image.name, [tool, tree, image, "-all-root", *SQUASH], timeout=300)
    return image


def compile_all(tree: Path) -> None:
    """Byte code for the box's Python, `tree` being its /; another version than ours cannot."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        return
    argv: list[str | Path] = [sys.executable, "-m", "compileall", "-q"]
    argv += ["-s", tree, "-p", "/", tree]
    cache.run("Python packages", argv, timeout=300)


def check_python() -> None:
    """The box is built with pip; Debian has it in a package of its own."""
    try:
        import pip  # noqa: F401
    except ImportError as error:
        raise HostLacks("pip is missing: apt-get install python3-pip, or use a .venv") from error

# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian kernels at hand for guests: those installed here, else those the box unpacked."""

from __future__ import annotations

import os
from pathlib import Path

# Read once: tests give the symbol cache, which shares the variable, a place of its own later.
CACHE = Path(os.environ.get("VNODE_DEBUG_CACHE") or Path.home() / ".cache/vnode-debug")


def kernels(flavour: str = "") -> list[Path]:
    """vmlinuz files, oldest first; `flavour` as in "cloud-"."""
    pattern = f"vmlinuz-*-{flavour}amd64"
    return sorted(Path("/boot").glob(pattern)) or sorted(
        CACHE.glob(f"linux-image-*/boot/{pattern}"), key=lambda path: path.name
    )


def headers(kernel: Path) -> Path:
    """Where script/modules has apt put the headers of a kernel."""
    return Path("/usr/src") / f"linux-headers-{kernel.name.removeprefix('vmlinuz-')}"


def modules(kernel: Path) -> Path:
    """The directory of a kernel's modules."""
    return kernel.parents[1] / "lib/modules" / kernel.name.removeprefix("vmlinuz-")

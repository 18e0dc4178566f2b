# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests booted once a session, and a private cache for each session."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from bench import stock
from introspect.kernel import Kernel
from introspect.memory import open_image
from tests.introspect.guest import BUSYBOX, Guest, boot


@pytest.fixture(scope="session", autouse=True)
def introspect_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    import os

    os.environ["VNODE_DEBUG_CACHE"] = str(tmp_path_factory.mktemp("symbol-cache"))


def stock_kernel() -> tuple[Path, Path]:
    """(image, modules directory) of the newest cloud kernel at hand, else a skip."""
    images = stock.kernels("cloud-")
    missing = [
        what
        for what, there in (
            ("qemu-system-x86_64 (package qemu-system-x86)", shutil.which("qemu-system-x86_64")),
            ("/usr/bin/busybox (package busybox-static)", BUSYBOX.exists()),
            ("a kernel (package linux-image-cloud-amd64)", images),
            ("an x86-64 host", platform.machine() == "x86_64"),
        )
        if not there
    ]
    if missing:
        pytest.skip("needs " + ", ".join(missing))
    return images[-1], stock.modules(images[-1])


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """A stock kernel with a module loaded, frozen while idle; also dumped by QEMU."""
    kernel, modules = stock_kernel()
    directory = tmp_path_factory.mktemp("guest")
    loaded = sorted((modules / "kernel").rglob("loop.ko*"))
    return boot(directory, kernel, loaded, elf=directory / "vmcore.elf", idle=True)


@pytest.fixture(scope="session")
def guest_kernel(guest: Guest) -> Kernel:
    return Kernel.find(open_image(guest.raw))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Other kernels and other places than those of the box's own config."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    Vnodes = Any  # of conftest.py

pytestmark = [pytest.mark.box, pytest.mark.timeout(900)]


def with_config(vnodes: Vnodes, config: str) -> None:
    """Starts the daemon and its vnodes anew with another config; "" for the box's own."""
    vnodes.text("down")
    if config:
        vnodes.box.check(f"cat >/tmp/life.toml <<'END'\n{config}\nEND")
    vnodes.text("up", "--wait", *(["--config", "/tmp/life.toml"] if config else []))


def test_unpacked_generic_kernel_and_memory_above_4g(vnodes: Vnodes) -> None:
    """An unpacked kernel's text lies where it was linked; the other one's at random."""
    config = vnodes.box.check("cat /etc/vnode-debug/vnodes.toml")
    cloud = re.search(r"/boot/vmlinuz-\S+-cloud-amd64", config)
    assert cloud
    head, alpha, beta, pair = config.split("[[vnode]]")
    beta = beta.replace(cloud[0], cloud[0].replace("-cloud", "") + '"\nfast_boot = true #')
    alpha = alpha.replace('"256M"', '"256M@0x140000000"')
    with_config(vnodes, "[[vnode]]".join((head, alpha, beta, pair)))
    try:
        assert vnodes.status(1)["region"] == 0x140000000
        assert vnodes.status(2)["release"] == cloud[0].replace("-cloud", "").partition("-")[2]
        offsets = []
        for vnode in (1, 2):
            incident = vnodes.fail(vnode, "panic")
            assert (incident["reason"], incident["outcome"]) == ("panic", "restarted")
            assert incident["dump"]["state"] == "done", incident["dump"]
            head = vnodes.box.check(f"head -c 1M {incident['dump']['path']} | strings")
            offsets += re.findall(r"^KERNELOFFSET=(\w+)$", head, re.MULTILINE)
        assert len(offsets) == 2
        assert offsets[1] == "0"
    finally:
        with_config(vnodes, "")

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stock kernel does not get done, seen in its memory while it runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from introspect.kernel import Kernel
from introspect.memory import open_image
from tests.introspect.conftest import stock_kernel
from tests.introspect.guest import READY, initramfs, running, wait_for
from tests.introspect.test_stack import crasher  # noqa: F401  # a fixture
from watchdog.progress import Progress

pytestmark = pytest.mark.box


def seen(raw: Path, words: str, stall: float, hung: float) -> str:
    """What Progress says once it says `words`, or at the end of two minutes."""
    progress = Progress(Kernel.find(open_image(raw), live=True), stall, hung)
    end = time.monotonic() + 120
    while words not in (text := progress.late(time.monotonic())) and time.monotonic() < end:
        time.sleep(0.5)
    return text


def test_tasks_that_wait_for_each_other(tmp_path: Path, crasher: bytes) -> None:  # noqa: F811
    disk = initramfs([], "insmod /crasher.ko fault=deadlock &", {"crasher.ko": crasher})
    with running(tmp_path, stock_kernel()[0], disk, cmdline="nowatchdog") as (_, raw, process):
        wait_for(tmp_path / "console", READY, process)
        assert seen(raw, "hung", stall=60, hung=2).startswith("hung task crash_")


def test_a_cpu_that_spins(tmp_path: Path, crasher: bytes) -> None:  # noqa: F811
    # a grace period that nobody asks for does not begin
    after = "(while sleep 0.2; do taskset 1 ls /proc; done >/dev/null) &"
    after += "(sleep 3; taskset 2 insmod /crasher.ko fault=softlockup) &"
    disk = initramfs([], after, {"crasher.ko": crasher})
    with running(tmp_path, stock_kernel()[0], disk, cmdline="nowatchdog") as (_, raw, process):
        wait_for(tmp_path / "console", READY, process)
        assert seen(raw, "", stall=2, hung=0) == ""
        assert seen(raw, "RCU", stall=2, hung=0) == "CPU 1 stuck, RCU stall"

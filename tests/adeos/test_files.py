# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user may name as a file: nothing is waited for, nothing is read without end."""

import os
import tracemalloc
from pathlib import Path

import pytest

from adeos.errors import ImageError
from adeos.files import read_regular
from adeos.loader import Image
from introspect.errors import BadImage
from introspect.image import open_kernel_image
from introspect.memory import open_image
from watchdog import config
from watchdog.errors import ConfigError


@pytest.fixture(params=["fifo", "directory", "/dev/zero", "/dev/null"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    if request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "directory":
        path.mkdir()
    return path


def test_it_is_refused_at_once(odd: Path) -> None:
    for read, error in (
        (read_regular, OSError),
        (lambda path: Image.stage(path, None), ImageError),
        (open_kernel_image, BadImage),
        (open_image, BadImage),
        (config.load, ConfigError),
    ):
        with pytest.raises(error, match=r"no regular file|Is a directory"):
            read(odd)


def test_a_config_that_names_one_is_wrong(odd: Path, tmp_path: Path) -> None:
    text = f'[[vnode]]\nid = 1\nname = "a"\ncpus = [1]\nmemory = "64M"\nkernel = "{odd}"\n'
    with pytest.raises(ConfigError, match="no regular file"):
        config.parse(text, tmp_path / "vnodes.toml")


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(tmp_path / "a", 4)


def test_the_limit_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    tracemalloc.start()
    try:
        assert read_regular(tmp_path / "a") == b"12345"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()

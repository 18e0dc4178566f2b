# SPDX-License-Identifier: GPL-2.0-or-later
"""The archives are read back by busybox's cpio, which the box uses too."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from box import cpio

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=40)


def unpack(data: bytes, where: Path) -> None:
    subprocess.run(
        ["busybox", "cpio", "-i", "-d", "-u"],
        cwd=where,
        input=data,
        check=True,
        capture_output=True,
        timeout=20,
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=st.dictionaries(NAMES, st.binary(max_size=3000), max_size=8))
def test_files_come_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    archive = cpio.Archive()
    for name, data in files.items():
        archive.file(f"/deep/er/{name}", data, 0o640)
    where = tmp_path_factory.mktemp("cpio")
    unpack(archive.finish(), where)
    found = {path.name: path.read_bytes() for path in where.glob("deep/er/*")}
    assert found == files


def test_kinds_and_modes(tmp_path: Path) -> None:
    archive = cpio.Archive()
    archive.file("bin/tool", b"#!/bin/sh\n", 0o755)
    archive.symlink("bin/alias", "tool")
    archive.directory("empty", 0o700)
    unpack(archive.finish(), tmp_path)
    assert (tmp_path / "bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "bin/alias").readlink() == Path("tool")
    assert (tmp_path / "empty").stat().st_mode & 0o7777 == 0o700


def test_archives_may_follow_one_another() -> None:
    """The kernel reads on after a trailer and zeros, at a multiple of 4 bytes."""
    first, second = cpio.Archive(), cpio.Archive()
    first.file("a", b"1")
    second.file("b", b"22")
    data = first.finish() + second.finish()
    assert len(first.finish()) % 512 == 0
    assert data.count(b"TRAILER!!!") == 2


def test_same_input_same_bytes() -> None:
    def build() -> bytes:
        archive = cpio.Archive()
        archive.file("x/y", b"data")
        archive.character_device("dev/console", 5, 1)
        return archive.finish()

    assert build() == build()


@pytest.mark.parametrize("path", ["", "/", "../x", "a/../../x"])
def test_refuses_paths_outside(path: str) -> None:
    with pytest.raises(ValueError):
        cpio.Archive().file(path, b"")


def test_refuses_a_second_file_of_a_name() -> None:
    archive = cpio.Archive()
    archive.file("x", b"")
    with pytest.raises(ValueError, match="already"):
        archive.file("x", b"")

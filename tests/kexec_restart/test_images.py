# SPDX-License-Identifier: GPL-2.0-or-later
"""Images whose kernel is unpacked when they are staged."""

from __future__ import annotations

from pathlib import Path

import pytest

from adeos.errors import ImageError
from kexec_restart.images import Spec, Stage
from tests.adeos.conftest import build_bzimage
from tests.adeos.test_vmlinux import WHOLE


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    file = tmp_path / "vmlinuz"
    file.write_bytes(build_bzimage())
    return file


def test_a_kernel_is_unpacked_once_for_all_who_boot_it(kernel: Path) -> None:
    asked: list[str] = []

    def unpack(data: bytes, name: str) -> bytes:
        asked.append(name)
        return WHOLE

    stage = Stage(unpack=unpack)
    specs = [stage.add(Spec(str(kernel), "", word, unpacked=True)) for word in ("one", "two")]
    packed = stage.add(Spec(str(kernel), "", "one"))
    assert asked == [str(kernel)]
    first, second = (stage.take(spec) for spec in specs)
    assert first.flat is second.flat is not None
    assert stage.take(packed).flat is None
    assert first.kernel_sha256 == stage.take(packed).kernel_sha256
    assert first.digests != stage.take(packed).digests


def test_it_is_unpacked_from_the_copies_of_a_replaced_file(kernel: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    spec = Stage(unpack=lambda data, name: WHOLE).add(Spec(str(kernel), "", "", unpacked=True))
    (copies / spec.kernel_sha256).write_bytes(kernel.read_bytes())
    kernel.write_bytes(b"another")
    image = Stage(copies, lambda data, name: WHOLE).get(spec)
    assert image.flat is not None


def test_a_kernel_that_cannot_be_unpacked_is_not_staged(kernel: Path) -> None:
    stage = Stage(unpack=lambda data, name: b"no vmlinux")
    with pytest.raises(ImageError, match="no 64-bit ELF"):
        stage.add(Spec(str(kernel), "", "", unpacked=True))

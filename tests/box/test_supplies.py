# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from box import cache, kernels, ssh
from box.errors import BuildFailed, HostLacks

MODULES_DEP = """\
fs/overlay.ko:
virtio/virtio_ring.ko:
virtio/virtio.ko: virtio/virtio_ring.ko
virtio/virtio_pci.ko: virtio/virtio.ko virtio/virtio_ring.ko
block/virtio_blk.ko: virtio/virtio.ko virtio/virtio_ring.ko
char/virtio-rng.ko.xz: virtio/virtio.ko
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VNODE_DEBUG_CACHE", str(tmp_path))
    return tmp_path


def test_modules_come_after_what_they_need() -> None:
    order = kernels.load_order(MODULES_DEP, ["virtio_pci", "virtio_blk", "built_in", "overlay"])
    assert [Path(path).stem for path in order] == [
        *("virtio_ring", "virtio", "virtio_pci", "virtio_blk", "overlay")
    ]
    assert kernels.load_order(MODULES_DEP, ["virtio_rng"])[-1].endswith("virtio-rng.ko.xz")


def test_meta_package() -> None:
    text = (
        "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n"
        "Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n"
    )
    assert kernels.parse_meta(text) == ("6.1.0-56-cloud-amd64", "6.1.192-2")
    with pytest.raises(HostLacks, match="apt-get update"):
        kernels.parse_meta("")


def test_an_entry_is_built_once(directory: Path) -> None:
    built: list[Path] = []

    def build(scratch: Path) -> Path:
        built.append(scratch)
        time.sleep(0.05)
        (scratch / "out").write_text("content")
        return scratch / "out"

    threads = [threading.Thread(target=cache.entry, args=("thing", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert cache.entry("thing", build).read_text() == "content"
    assert not list(directory.glob(f"{cache.SCRATCH}*"))


def test_a_failed_build_leaves_nothing(directory: Path) -> None:
    def build(scratch: Path) -> Path:
        (scratch / "half").write_text("half")
        cache.run("test", ["sh", "-c", "echo one; echo two >&2; exit 3"], timeout=10)
        return scratch / "half"

    with pytest.raises(BuildFailed, match=r"sh ended with 3: one \| two"):
        cache.entry("thing", build)
    assert not [path for path in directory.iterdir() if not path.name.startswith(".lock")]


def test_scratch_of_a_killed_build_goes_away(directory: Path) -> None:
    (directory / f"{cache.SCRATCH}thing-dead").mkdir()

    def build(scratch: Path) -> Path:
        (scratch / "out").touch()
        return scratch / "out"

    cache.entry("thing", build)
    assert not list(directory.glob(f"{cache.SCRATCH}*"))


def test_digest_sees_borders() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc")


def test_write_is_atomic_and_private(directory: Path) -> None:
    cache.write_atomically(directory / "file", b"1")
    cache.write_atomically(directory / "file", b"2")
    assert (directory / "file").read_bytes() == b"2"
    assert (directory / "file").stat().st_mode & 0o777 == 0o600
    assert list(directory.iterdir()) == [directory / "file"]


def test_missing_program_names_its_package() -> None:
    with pytest.raises(HostLacks, match="apt-get install some-package"):
        cache.program("no-such-program-anywhere", "some-package")


def test_ssh_passes_words_unsplit(directory: Path) -> None:
    options = ssh.options(directory / "a b", directory / "ssh", 2222)
    argv = ssh.argv(options, ["sh", "-c", "echo $0 'x'", "a b"], tty=True)
    assert argv[-1] == """sh -c 'echo $0 '"'"'x'"'"'' 'a b'"""
    assert "-tt" in argv
    assert f'IdentityFile="{directory}/a b/client_key"' in argv

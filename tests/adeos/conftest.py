# SPDX-License-Identifier: GPL-2.0-or-later
"""Builders for the tests of adeos/: a synthetic bzImage, a placement on a fake machine."""

import struct
from collections.abc import Iterator

import pytest

from adeos import loader
from adeos.bridge import Bridge
from adeos.fake import FakeMachine
from adeos.machine import Range
from box.cpio import Archive

REGION = Range(0x30000000, 0x8000000)
SLOT = Range(0x10000, 0x20000)


def build_bzimage(
    *,
    protocol: int = 0x020F,
    xloadflags: int = 0x3,
    relocatable: int = 1,
    init_size: int = 0x1000000,
    alignment: int = 0x200000,
    payload: bytes = b"\x90" * 0x4000,
) -> bytes:
    """A file with a valid setup header whose protected-mode part is `payload`."""
    setup = bytearray(5 * 512)

    def put(fmt: str, offset: int, value: int) -> None:
        struct.pack_into("<" + fmt, setup, offset, value)

    put("B", 0x1F1, 4)
    put("I", 0x1F4, len(payload) // 16)
    put("H", 0x1FE, 0xAA55)
    setup[0x200:0x202] = b"\xeb\x6a"
    setup[0x202:0x206] = b"HdrS"
    put("H", 0x206, protocol)
    put("H", 0x20E, 0x300)
    setup[0x500:0x50C] = b"6.1.0-synth\0"
    put("B", 0x211, 1)
    put("I", 0x230, alignment)
    put("B", 0x234, relocatable)
    put("H", 0x236, xloadflags)
    put("I", 0x238, 2047)
    put("I", 0x260, init_size)
    return bytes(setup) + payload


def build_cpio(files: dict[str, bytes]) -> bytes:
    """An initramfs of plain files."""
    archive = Archive()
    for name, data in files.items():
        archive.file(name, data)
    return archive.finish()


def place(machine: FakeMachine, vnode: int = 2, **changes: object) -> loader.Placement:
    """Binds CPUs 2 and 3 to a vnode on `machine` and says where it goes."""
    binding = machine.bind(vnode, [2, 3], REGION, SLOT)
    placement = loader.Placement(
        vnode=vnode,
        name="web",
        region=REGION,
        slot=SLOT,
        apicids=binding.cpus,  # a FakeMachine's APIC ids are its CPU numbers
        incarnation=7,
        vector=binding.vector,
        dest_apicid=binding.dest_apicid,
    )
    return placement._replace(**changes)


@pytest.fixture
def adeos_machine() -> Iterator[FakeMachine]:
    machine = FakeMachine()
    machine.claim()
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def bzimage():
    """build_bzimage."""
    return build_bzimage


@pytest.fixture(scope="session")
def cpio():
    """build_cpio."""
    return build_cpio


@pytest.fixture
def placed(adeos_machine: FakeMachine) -> loader.Placement:
    """Vnode 2 bound to CPUs 2 and 3 of `adeos_machine`."""
    return place(adeos_machine)


@pytest.fixture
def running(adeos_machine: FakeMachine, placed: loader.Placement):
    """Vnode 2 loaded and started: (its Bridge, its FakeVnode)."""
    image = loader.Image.of(build_bzimage(), build_cpio({"init": b"#!/bin/sh\n"}), "quiet")
    entry = loader.load(adeos_machine, image, placed)
    adeos_machine.start(2, cr3=entry.cr3, entry=entry.entry, rsi=entry.rsi)
    return Bridge.open(adeos_machine, placed.region, writable=True), adeos_machine.vnodes[2]

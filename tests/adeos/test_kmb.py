# SPDX-License-Identifier: GPL-2.0-or-later
"""KmbMachine, loader and bridge against real kernels in the box."""

import json

import pytest

from adeos import abi

SESSION = "/opt/vnode-debug/tests/adeos/kmb_session.py"
INITRD = "$(sed -n 's/^initrd *= *\"\\(.*\\)\"/\\1/p' /etc/vnode-debug/vnodes.toml | head -1)"
GENERAL = abi.VN_FRAME_GP | abi.VN_FRAME_CONTROL

REFUSED = [
    ("ParkedError", "that CPU is parked"),
    ("PlacementError", "not given to vnodes"),
    ("PlacementError", "not given to vnodes"),
    ("PlacementError", "vnode 8: CPU 0 is not given to vnodes; given are: 1, 2, 3"),
    ("PlacementError", "belongs to vnode 7"),
    ("PlacementError", "taken"),
    ("PlacementError", "outside its slot and region"),
    ("PlacementError", "is not bound"),
    ("PlacementError", "not of its kernel"),
    ("PlacementError", "not of its kernel"),
    ("PlacementError", "not of its kernel"),
    ("PlacementError", "not of its kernel"),
    ("PlacementError", "is not bound"),
    ("PlacementError", "1..1000 ms"),
    ("PlacementError", "not given to vnodes"),
    ("PlacementError", "not given to vnodes"),
    ("PlacementError", "not given to vnodes"),
    *[("PlacementError", "cannot be filled with these pages")] * 5,
    ("PlacementError", "is not bound"),
    ("OwnerError", "another process owns the machine"),
    ("OwnerError", "opened as an observer"),
    ("OwnerError", "does not own the machine"),
    ("OwnerError", "does not own the machine"),
    ("OwnerError", "only the owner maps memory writable"),
]


MISSED = [
    ("FenceError", "does not start"),
    ("PlacementError", "not parked"),
    ("PlacementError", "wait"),
    ("PlacementError", "being parked or started"),
    ("PlacementError", "not parked"),
    ("PlacementError", "not parked"),
    ("ParkedError", "is parked"),
    ("PlacementError", "of a running vnode"),
    ("FenceError", "does not start"),
]

CONTROL = [
    ("OwnerError", "opened as an observer"),
    ("PlacementError", "is not bound"),
    ("PlacementError", "a lease has 1..60000 ms"),
    ("HeldError", "no control of it any more"),
    ("HeldError", "no control of it any more"),
    ("OwnerError", "does not own the machine"),
    ("nothing", ""),
    ("HeldError", "controls it"),
    ("nothing", ""),
    ("PlacementError", "no memory of its own"),
    ("PlacementError", "no memory of its own"),
    ("PlacementError", "no memory of its own"),
    ("nothing", ""),
    ("PlacementError", "a breakpoint already"),
    ("PlacementError", "lie in its region"),
    ("PlacementError", "there is no breakpoint"),
    ("HeldError", "no control of it any more"),
    ("HeldError", "no control of it any more"),
]


@pytest.mark.parametrize(("flavour", "cpus"), [("cloud-amd64", "2,3"), ("amd64", "1")])
def test_a_vnode_lives_panics_and_lives_again(box, flavour, cpus):
    kernel = f"$(ls /boot/vmlinuz-6.1.0-*[0-9]-{flavour} | head -1)"
    told = json.loads(box.check(f"python3 {SESSION} {kernel} {INITRD} {cpus}", timeout=280))
    ncpus = len(cpus.split(","))
    for number, life in enumerate(told["lives"], 1):
        assert life["incarnation"] == number
        assert life["release"].endswith(flavour)
        assert life["ncpus"] == ncpus
        assert life["rings"] >= 1 and life["crash_rings"] >= 1
        assert life["ping"] == 0
        assert all(rip for rip in life["frames"])
        assert (life["reason"], life["cpu"]) == ("PANIC", ncpus - 1)
        assert "injected panic" in life["message"]
        assert [flags & GENERAL for flags in life["saved"]] == [GENERAL] * ncpus
        crashed = [bool(flags & abi.VN_FRAME_CRASHED) for flags in life["saved"]]
        assert crashed == [False] * (ncpus - 1) + [True]
        assert life["kmsg"]
        control = life["control"]
        for (kind, text), (expected, words) in zip(control["said"], CONTROL, strict=True):
            assert kind == expected and words in text and "\n" not in text, text
        assert control["bytes"] == [0xCC, ord("A"), ord("A")]
        assert control["holders"] == [True, 0, 0]
    first, second = (life["missed"] for life in told["lives"])
    assert first is None and second["waited"], "the others waited for a CPU that did not come"
    said = (*second["late"], second["wrong"], *second["busy"], *second["said"])
    for (kind, text), (expected, words) in zip(said, MISSED, strict=True):
        assert kind == expected and words in text and "\n" not in text, text
    for (kind, text), (expected, words) in zip(told["refusals"], REFUSED, strict=True):
        assert kind == expected and words in text and "\n" not in text, text
    assert told["pages"] == {"counts": [2, 0], "same": True, "behind": 1}
    assert told["left"] is None
    assert told["retries"] >= 1  # a CPU that missed its SIPI

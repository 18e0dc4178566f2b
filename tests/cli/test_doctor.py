# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor's verdicts on machines made up of files, and on a fake machine."""

import json

import pytest

from cli import machine_check
from cli.machine_check import PROGRAMS, Facts, Role, Verdict, check, complete, count_cpus, role
from crashdump.quota import Limits, Usage

PREPARED = "ro maxcpus=1 memmap=512M$0x20000000 no_ipi_broadcast=1 tsc=reliable"


def facts(**changes):
    """A host with everything a box needs."""
    base = Facts(
        arch="x86_64",
        release="6.1.0",
        cmdline="ro quiet",
        cpus_present=4,
        cpus_online=4,
        cpu_flags=frozenset({"constant_tsc"}),
        mem_bytes=8 << 30,
        clocksource="tsc",
        kmb_device=False,
        kmb_loaded=False,
        info=None,
        info_error="",
        headers=True,
        kvm=False,
        box_accel="",
        programs=frozenset(PROGRAMS),
    )
    return base._replace(**changes)


def verdict(name, **changes):
    (found,) = [c for c in check(facts(**changes)) if c.name == name]
    return found.verdict


def root(world=None, **changes):
    """Facts of a root vnode with kmb.ko."""
    info = world.machine.info() if world else None
    return {
        "cmdline": PREPARED,
        "cpus_online": 1,
        "kmb_device": True,
        "kmb_loaded": True,
        "info": info,
        **changes,
    }


def test_dumps_are_told_with_what_they_may_take():
    found = machine_check.dumps(Usage(3, 5 << 30, 100 << 30), Limits(200, 20 << 30, 1 << 30))
    assert found.text == "3 dump(s) of 200, 5G of 20G, 100G free, 1G kept"
    assert found.verdict is Verdict.OK
    tight = machine_check.dumps(Usage(3, 5 << 30, 1 << 30), Limits(free=1 << 30))
    assert tight.verdict is Verdict.NOTE and "are removed" in tight.hint


def test_a_complete_host_and_a_complete_root(world):
    assert role(facts()) is Role.HOST
    assert complete(check(facts()))
    assert role(facts(**root(world))) is Role.ROOT
    assert complete(check(facts(**root(world))))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("architecture", {"arch": "aarch64"}),
        ("qemu-system-x86_64", {"programs": frozenset(set(PROGRAMS) - {"qemu-system-x86_64"})}),
        ("memory", {"mem_bytes": 2 << 30}),
        ("/dev/kmb", root(kmb_device=False)),
        ("/dev/kmb", root(info=None, info_error="ABI 7")),
        ("CPUs", root(cpus_online=4)),
        ("IPIs", root(cmdline="memmap=1G$1G")),
        ("memory", root(cmdline="no_ipi_broadcast=1")),
    ],
)
def test_what_is_needed_and_missing(name, changes):
    assert verdict(name, **changes) is Verdict.MISSING
    assert not complete(check(facts(**changes)))


def test_what_is_not_reserved_can_be_taken_by_hotplug():
    bare = root(cmdline="no_ipi_broadcast=1", cpus_online=4, kmb_device=False, kmb_loaded=False)
    assert role(facts(**bare)) is Role.ROOT
    assert verdict("memory", **bare) is verdict("CPUs", **bare) is Verdict.MISSING
    assert verdict("memory", hotplug=True, **bare) is Verdict.NOTE
    assert verdict("CPUs", hotplug=True, **bare) is Verdict.NOTE


def test_a_missing_thing_has_a_hint():
    for found in check(facts(programs=frozenset())) + check(facts(**root(kmb_device=False))):
        if found.verdict is Verdict.MISSING:
            assert found.hint, found


def test_kvm_is_never_proven_by_its_device():
    assert verdict("KVM", kvm=True) is Verdict.NOTE
    assert verdict("KVM", kvm=False) is Verdict.NOTE
    assert verdict("KVM", kvm=True, box_accel="tcg") is Verdict.NOTE
    assert verdict("KVM", kvm=True, box_accel="kvm") is Verdict.OK


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0-3\n", 4),
        ("0", 1),
        ("0-1,4-5,7", 5),
        ("", 0),
        ("junk-x", 0),
        ("3-", 0),
    ],
)
def test_count_cpus(text, count):
    assert count_cpus(text) == count


def test_gather_reads_a_tree_of_files(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_bytes(PREPARED.encode() + b"\xff\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:     2048 kB\n")
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags\t\t: fpu x2apic\n")
    found = machine_check.gather(tmp_path)
    assert found.cmdline.startswith("ro maxcpus=1")
    assert found.mem_bytes == 2 << 20
    assert found.cpu_flags == {"fpu", "x2apic"}
    assert not found.kmb_device
    assert found.cpus_present == 0


def test_gather_says_why_the_device_cannot_be_opened(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kmb").touch()

    def refuse():
        raise PermissionError(13, "Permission denied")

    found = machine_check.gather(tmp_path, refuse)
    assert found.kmb_device
    assert "Permission denied" in found.info_error


def test_the_verb_tells_the_limits_and_has_the_code_of_its_verdict(call):
    result = call("doctor", "--here", "--json")
    report = json.loads(result.out)
    missing = [c for c in report["checks"] if c["verdict"] == "missing"]
    assert result.code == (5 if missing else 0)
    assert any("without a hypervisor" in limit for limit in report["limits"])
    assert "triple fault" in call("doctor", "--here").out

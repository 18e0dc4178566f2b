# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmcore of a stock kernel that really panicked, in the hands of its readers."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from elftools.elf.elffile import ELFFile

from crashdump import vmcore
from crashdump.facts import KernelFacts, Segment, find
from crashdump.notes import CpuState
from tests.crashdump import guest, oracle
from tests.crashdump.guest import Guest

pytestmark = pytest.mark.box


class Dumped(NamedTuple):
    guest: Guest
    facts: KernelFacts
    summary: vmcore.Summary

    @property
    def registers(self) -> CpuState:
        """Of the crashed CPU."""
        cpu = self.guest.cpus[self.crashed_cpu]
        assert cpu
        return cpu

    @property
    def kernel_offset(self) -> int:
        found = re.search(rb"KERNELOFFSET=([0-9a-f]+)", self.facts.vmcoreinfo)
        assert found
        return int(found.group(1), 16)

    @property
    def crashed_cpu(self) -> int:
        found = re.search(r"CPU: (\d+) PID: \d+ Comm: ", self.guest.console)
        assert found
        return int(found.group(1))


@pytest.fixture(
    scope="module",
    params=[(kernel, kaslr) for kernel in guest.kernels() for kaslr in (True, False)],
    ids=lambda param: f"{param[0].name[8:]}-{'kaslr' if param[1] else 'nokaslr'}",
)
def dumped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dumped]:
    kernel, kaslr = request.param
    directory = tmp_path_factory.mktemp("guest")
    dead = guest.panic(kernel, directory, kaslr=kaslr)
    segments = dead.segments()
    facts = find(segments)
    yield Dumped(dead, facts, vmcore.write(directory / "vmcore", segments, dead.cpus, facts))
    for path in directory.iterdir():
        path.unlink()


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, errors="replace")
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_kernel_is_known(dumped: Dumped) -> None:
    facts = dumped.facts
    assert facts.remark == ""
    assert f"Linux version {facts.release} " in dumped.guest.console
    offset = re.search(r"Kernel Offset: (disabled|0x[0-9a-f]+)", dumped.guest.console)
    assert offset
    assert dumped.kernel_offset == (0 if offset[1] == "disabled" else int(offset[1], 16))
    assert any(run.va >= 0xFFFFFFFFC0000000 for run in facts.image)  # modules' space
    stack = dumped.registers.regs[19]
    assert any(run.va <= stack < run.va + run.size for run in facts.others)


def test_a_kernel_without_vmcoreinfo_is_known(dumped: Dumped) -> None:
    memory = bytearray(dumped.guest.ram.read_bytes())
    for page in range(0, len(memory), 4096):
        head = memory[page : page + 34]
        if head.startswith(b"OSRELEASE=") or head[24:].startswith(b"OSRELEASE="):
            memory[page : page + 4096] = bytes(4096)
    facts = find([Segment(0, memoryview(memory))])
    assert facts.vmcoreinfo == b""
    assert facts.remark == "no VMCOREINFO"
    assert (facts.release, facts.page_offset) == (dumped.facts.release, dumped.facts.page_offset)
    assert facts.image == dumped.facts.image


def test_pyelftools_reads_it(dumped: Dumped) -> None:
    with dumped.summary.path.open("rb") as file:
        core = ELFFile(file)
        notes = next(core.iter_segments("PT_NOTE"))
        names = [note["n_name"] for note in notes.iter_notes()]
        loads = list(core.iter_segments("PT_LOAD"))
        whole = next(one for one in loads if one["p_filesz"] == guest.RAM)
        assert whole.data() == dumped.guest.ram.read_bytes()
    assert names == ["VMCOREINFO", "CORE", "CORE", "QEMU", "QEMU"]
    assert dumped.summary.stored < guest.RAM / 2
    blocks = dumped.summary.path.stat().st_blocks * 512
    assert blocks <= dumped.summary.stored + (1 << 20)


def test_makedumpfile_filters_it(dumped: Dumped) -> None:
    small = dumped.summary.path.with_name("small")
    run("makedumpfile", "-f", "-d", "31", "-l", dumped.summary.path, small)
    assert small.stat().st_size < dumped.summary.stored / 2
    log = small.with_name("log")
    run("makedumpfile", "-f", "--dump-dmesg", dumped.summary.path, log)
    assert "sysrq triggered crash" in log.read_text(errors="replace")


def test_gdb_opens_it_without_symbols(dumped: Dumped) -> None:
    banner = re.search(r"Linux version [^\r\n]{40}", dumped.guest.console)
    assert banner
    start, size = dumped.facts.image[0].va, dumped.facts.image[0].size
    text = run(
        *("gdb", "-nx", "-batch", "-ex", f"core-file {dumped.summary.path}"),
        *("-ex", "info threads", "-ex", f"thread {dumped.crashed_cpu + 1}", "-ex", "p/x $pc"),
        *("-ex", "x/4gx $sp", "-ex", f"find {start:#x},+{size},'L','i','n','u','x',' ','v'"),
    )
    assert len(re.findall(r"^\*? +\d+ +LWP \d", text, re.MULTILINE)) == 2
    assert f"= {dumped.registers.regs[16]:#x}" in text
    found = [int(at, 16) for at in re.findall(r"^(0x[0-9a-f]+)$", text, re.MULTILINE)]
    gdb = ("gdb", "-nx", "-batch", "-ex", f"core-file {dumped.summary.path}")
    said = [run(*gdb, "-ex", f"x/s {at:#x}") for at in set(found)]
    assert any(banner[0] in one for one in said)


def test_drgn_opens_it_without_debuginfo(dumped: Dumped) -> None:
    import drgn

    program = drgn.Program()
    program.set_core_dump(dumped.summary.path)
    assert program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    stack = dumped.registers.regs[19]
    assert program.read(dumped.facts.image[0].va, 16) == program.read(
        dumped.facts.image[0].pa, 16, physical=True
    )
    assert program.read(stack, 64)


@pytest.mark.oracle
@pytest.mark.timeout(1800)  # downloads
def test_crash_drgn_and_gdb_see_the_same_frames(dumped: Dumped) -> None:
    symbols = oracle.vmlinux(dumped.facts.release)
    out = dumped.summary.path
    by_crash = oracle.frames_of_crash(symbols, out)
    assert [name for name, _ in by_crash][:2] == ["panic", "sysrq_handle_crash"]
    assert len(by_crash) > 6
    assert oracle.frames_of_drgn(symbols, out) == by_crash
    assert oracle.frames_of_gdb(symbols, out, dumped.kernel_offset, dumped.crashed_cpu) == by_crash
    ours = oracle.frames_of_introspect(out, dumped.crashed_cpu)
    assert ours == by_crash
    evidence = {"crashed_cpu": dumped.crashed_cpu, "reason": "panic"}
    out.with_name("crash.json").write_text(json.dumps(evidence))
    assert oracle.main(out) == 0


@pytest.mark.oracle
@pytest.mark.timeout(1800)  # downloads
def test_crash_reads_the_log_the_kernel_printed(dumped: Dumped) -> None:
    log = oracle.crash(oracle.vmlinux(dumped.facts.release), dumped.summary.path)["log"]
    stamp = re.compile(r"^\[ *\d+\.\d+\] *|^ +")  # crash indents further lines of a record
    lines = dumped.guest.console.splitlines()
    printed = [stamp.sub("", line).rstrip() for line in lines if line.startswith("[ ")]
    logged = {stamp.sub("", line).rstrip() for line in log.splitlines()}
    missing = [line for line in printed[:-1] if line not in logged]  # the last may be cut
    assert len(printed) > 100
    assert missing == []

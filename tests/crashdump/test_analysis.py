# SPDX-License-Identifier: GPL-2.0-or-later
"""Real faults, analysed from memory alone: titles, culprits, locks, stacks; and their exports."""

import json
import random
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import stock
from crashdump import capture, export, vmcore
from crashdump.analysis import html, redact
from crashdump.analysis.report import Facts, Lines, Report, Stack, State, Table, decode
from crashdump.analysis.run import NAMES, NotReadable, analyze_file, kernels
from crashdump.analysis.text import render
from crashdump.export import Format
from crashdump.facts import Segment, find
from crashdump.incident import Dump, DumpState, Evidence
from crashdump.notes import CpuState
from crashdump.store import IncidentStore
from introspect import drgn_bridge
from introspect.elfcore import ElfMemory
from introspect.kernel import Kernel
from introspect.memory import open_image
from introspect.stack import describe
from tests.crashdump.faults import FAULTS, MEMORY, build, crash
from tests.introspect.conftest import stock_kernel
from tests.introspect.guest import READY, initramfs, running, wait_for

pytestmark = pytest.mark.box
ALL_OK = {"reason", "backtrace", "cpus", "locks", "hung", "log", "runqueues", "rcu", "memory",
          "modules", "system", "blocked", "tasks", "instruction", "registers"}  # fmt: skip


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    headers = stock.headers(stock_kernel()[0])
    if not (headers / "Makefile").exists():
        pytest.skip(f"needs {headers} (package linux-headers-cloud-amd64)")
    return build(tmp_path_factory.mktemp("crasher"), headers)


Cores = dict[str, Path]


@pytest.fixture(scope="module")
def cores(module: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cores]:
    """The vmcores, each made when first asked for."""

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            directory = tmp_path_factory.mktemp(name)
            fault, _, options = name.partition("+")
            elsewhere = bool(options)
            kernel, _ = stock_kernel()
            self[name] = crash(
                fault, directory, kernel, module, kaslr=elsewhere, cpu=int(elsewhere)
            )
            return self[name]

    made = Made()
    yield made
    for core in made.values():
        for file in core.parent.iterdir():
            file.unlink()


def blocks(report: Report, panel: str) -> tuple[object, ...]:
    found = report.panel(panel)
    assert found is not None
    return found.blocks


def frames(report: Report) -> list[str]:
    """The functions of the failed CPU's stack."""
    (stack, *_) = [one for one in blocks(report, "backtrace") if isinstance(one, Stack)]
    return [frame.split("+")[0] for frame in stack.frames]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_gets_its_title_and_culprit(cores: Cores, name: str) -> None:
    report = analyze_file(cores[name])
    assert (report.title, report.culprit) == (FAULTS[name].title, FAULTS[name].culprit)
    assert report.module == "crasher"
    assert report.guess == (name == "spin")  # it said nothing, and no incident tells that it hangs
    states = {panel.name: (panel.state, panel.note) for panel in report.panels}
    assert states == dict.fromkeys(ALL_OK, (State.OK, ""))
    assert report.seconds < 5
    if name not in ("deadlock", "stale"):
        assert FAULTS[name].culprit in frames(report)
    text = render(report, commands=True)
    assert text.startswith(report.title + "\n")
    assert text.replace("\n", "").isprintable()


def test_the_title_is_that_of_another_boot_cpu_and_kaslr_offset(cores: Cores) -> None:
    here, there = analyze_file(cores["null"]), analyze_file(cores["null+kaslr"])
    assert (here.title, here.culprit) == (there.title, there.culprit)
    assert (here.cpu, there.cpu) == (0, 1)
    assert frames(here)[-6:] == frames(there)[-6:]
    (facts, *_) = [one for one in blocks(there, "system") if isinstance(one, Facts)]
    console = cores["null+kaslr"].with_name("console").read_text(errors="replace")
    said = re.search(r"Kernel Offset: 0x([0-9a-f]+) from", console)
    assert said  # the kernel drew it, and one draw in 490 is zero
    drawn = int(said[1], 16)
    assert dict(facts.rows)["KASLR offset"] == (f"{drawn:#x}" if drawn else "none")


def test_a_raw_image_is_analysed_by_the_same_command(cores: Cores) -> None:
    """No registers: the log's serve, and where there are none, a scan that is called a guess."""
    for name in ("null", "softlockup", "oom", "stack"):
        report = analyze_file(cores[name].with_name("ram.raw"))
        assert (report.title, report.culprit) == (FAULTS[name].title, FAULTS[name].culprit)
        (stack, *_) = [one for one in blocks(report, "backtrace") if isinstance(one, Stack)]
        assert stack.guess == (name == "oom")


def test_a_truncated_vmcore_is_analysed_as_far_as_it_goes(cores: Cores, tmp_path: Path) -> None:
    """Without KASLR the kernel lies low, and what is cut off are the last 16 MiB of the memory."""
    cut = tmp_path / "vmcore"
    with cores["null"].open("rb") as whole:
        cut.write_bytes(whole.read(cores["null"].stat().st_size - (16 << 20)))
    report = analyze_file(cut)
    assert report.title == FAULTS["null"].title
    (facts, *_) = [one for one in blocks(report, "reason") if isinstance(one, Facts)]
    missing = re.match(r"truncated: (\d+) bytes", dict(facts.rows)["dump"])
    assert missing and 0 <= (16 << 20) - int(missing[1]) < 4096  # QEMU ends a file with names
    assert State.OK in {panel.state for panel in report.panels}
    assert not [one.note for one in report.panels if one.note.startswith("internal error")]


def test_the_kernels_of_a_dump_are_listed(cores: Cores) -> None:
    (kernel,) = kernels(cores["null"].with_name("ram.raw"))
    report = analyze_file(cores["null"])
    assert (kernel.release, kernel.build_id) == (report.release, report.build_id)
    with pytest.raises(NotReadable, match="has 1 kernels"):
        analyze_file(cores["null"], number=1)


def test_the_memory_of_a_running_guest_is_analysed_by_the_same_command(tmp_path: Path) -> None:
    with running(tmp_path, stock_kernel()[0], initramfs([])) as (_, raw, process):
        wait_for(tmp_path / "console", READY, process)
        report = analyze_file(raw)
    assert report.title == "no failure found" and report.release
    states = {panel.name: (panel.state, panel.note) for panel in report.panels}
    wanted = ALL_OK - {"instruction", "registers", "backtrace"}  # nothing has failed
    assert {name for name in wanted if states[name] != (State.OK, "")} == set()


def test_the_instruction_and_registers_of_a_null_dereference(cores: Cores) -> None:
    report = analyze_file(cores["null"], only=("instruction", "registers"))
    shown = [line for one in blocks(report, "instruction") if isinstance(one, Lines)
             for line in one.lines]  # fmt: skip
    (here,) = [line for line in shown if line.startswith("=>")]
    assert here.endswith("mov dword ptr [rdi + 4], 1")
    (registers,) = [dict(one.rows) for one in blocks(report, "registers")
                    if isinstance(one, Facts)]  # fmt: skip
    assert registers["di"] == f"{0:016x}  NULL"
    assert "crasher_write+" in registers["ip"] and "stack of busybox" in registers["sp"]


def test_a_deadlock_names_both_tasks_and_both_locks(cores: Cores) -> None:
    report = analyze_file(cores["deadlock"])
    (ring,) = [one for one in blocks(report, "locks")
               if isinstance(one, Lines) and one.heading.startswith("Deadlock of 2")]  # fmt: skip
    told = "\n".join(re.sub(r"\(\d+\)", "", line) for line in ring.lines)
    assert (
        "crash_ab  waits in crasher_ab for mutex crasher_second [crasher], which crash_ba" in told
    )
    assert "crash_ba  waits in crasher_ba for mutex crasher_first [crasher], which crash_ab" in told
    (table,) = [one for one in blocks(report, "locks") if isinstance(one, Table)]
    rows = {row[0]: row for row in table.rows}
    sem = rows["crasher_sem [crasher]"]
    assert sem[1] == "rwsem" and sem[2].startswith("crash_writer ") and "crash_reader" in sem[4]
    (hung,) = [one for one in blocks(report, "hung") if isinstance(one, Table)]
    assert {"crash_ab", "crash_ba", "crash_reader"} <= {row[1] for row in hung.rows}


def test_drgn_unwinds_through_a_module_without_debuginfo(cores: Cores) -> None:
    pytest.importorskip("drgn")
    kernel = Kernel.find(open_image(cores["deadlock"]))
    program = drgn_bridge.program(kernel)
    tasks = [task for task in kernel.tasks() if task.comm.startswith("crash_")]
    assert len(tasks) == 4
    for task in tasks:
        ours = describe(kernel, kernel.backtrace(task))
        names = [line.split("+")[0] for line in ours]
        assert f"crasher_{task.comm[6:]}" in names and names[-1].startswith("ret_from_fork")
        assert [frame.name for frame in program.stack_trace(task.pid)] == names


def test_a_stale_write_tells_who_freed_the_object(cores: Cores) -> None:
    report = analyze_file(cores["stale"], only=("reason",))
    (facts, *_) = [one for one in blocks(report, "reason") if isinstance(one, Facts)]
    rows = dict(facts.rows)
    assert rows["freed in"] == "crasher_free" and rows["allocated in"] == "crasher_alloc"


def as_incident(store: IncidentStore, core: Path, reason: str) -> int:
    """An incident of that guest: the dump written by this product out of RAM and registers."""
    memory = open_image(core)
    assert isinstance(memory, ElfMemory)
    cpus = [CpuState(n, struct.unpack("<27Q", raw)) for n, raw in enumerate(memory.registers)]
    ram = memoryview(core.with_name("ram.raw").read_bytes())
    assert len(ram) == MEMORY << 20
    one = store.create(vnode=2, name="web", incarnation=1, reason=reason, crash=True)
    evidence = Evidence(one.id, reason, "", None, tuple(cpus))
    capture.record(store, one.id, evidence)
    out = store.path(one.id) / capture.VMCORE_FILE
    segments = [Segment(0, ram)]
    summary = vmcore.write(out, segments, cpus, find(segments))
    done = Dump(DumpState.DONE, path=out.name, size=summary.size, stored=summary.stored)
    store.finish(one.id, dump=done)
    return one.id


def wait_for_title(store: IncidentStore, number: int) -> str:
    end = time.monotonic() + 60
    while not store.get(number).title and time.monotonic() < end:
        time.sleep(0.1)
    return store.get(number).title


def test_the_worker_analyses_a_hang_in_the_background(
    cores: Cores, incident_store: IncidentStore
) -> None:
    number = as_incident(incident_store, cores["spin"], "irqhang")
    command = [sys.executable, "-m", "crashdump.worker", str(incident_store.directory), str(number)]
    done = subprocess.run(command, env=capture.worker_environment(), timeout=60, check=False)
    assert done.returncode == 0
    assert wait_for_title(incident_store, number) == FAULTS["spin"].title
    path = incident_store.path(number) / "analysis.json"
    report = decode(path.read_bytes())
    assert (report.incident, report.culprit, report.guess) == (number, "crasher_spin", False)
    assert {panel.name for panel in report.panels} == set(NAMES)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", list(Format))
def test_an_export_is_read_back(
    cores: Cores, incident_store: IncidentStore, kind: Format, tmp_path: Path
) -> None:
    number = as_incident(incident_store, cores["null"], "oops")
    source, out = incident_store.path(number) / "vmcore", tmp_path / "out" / f"out.{kind}"
    out.parent.mkdir()
    done = export.export(source, out, kind)
    assert done.tasks > 20 and done.pages > 50
    assert out.stat().st_mode & 0o777 == 0o600
    assert list(out.parent.iterdir()) == [out]
    if kind is Format.KDUMP:
        assert done.stored < source.stat().st_blocks * 512 / 2
    assert analyze_file(out, only=("reason",)).title == FAULTS["null"].title


def test_an_export_that_differs_is_refused(
    cores: Cores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = cores["null"].with_name("ram.raw")
    write = export._write_raw

    def spoiled(source: Path, out: Path) -> None:
        write(source, out)
        with out.open("r+b") as file:
            for page in range(1 << 20, 96 << 20, 4096):
                file.seek(page + 100)
                file.write(b"\xff")

    monkeypatch.setattr(export, "_write_raw", spoiled)
    with pytest.raises(export.ExportFailed, match="read back"):
        export.export(source, tmp_path / "out.raw", Format.RAW)
    assert list(tmp_path.iterdir()) == []


def test_the_capsule_stands_alone(cores: Cores) -> None:
    report = redact.redacted(analyze_file(cores["null"]))
    text = html.render(report)
    assert str(cores["null"].parent) not in text
    assert not re.search(r"(?i)<(?:img|link|iframe)|src=|href=|https?://", text)
    data = re.search(r'<script type="application/json" id="report">(.*)</script>', text)
    assert data
    assert json.loads(data[1])["title"] == report.title
    assert "vnode-debug analyze vmcore.elf -M backtrace" in text
    assert len(text) < 1 << 20


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_memory_is_still_reported_on(cores: Cores, seed: int, tmp_path: Path) -> None:
    """Whatever is in it: a report or one clear error, in bounded time."""
    chance = random.Random(seed)
    memory = bytearray(cores["deadlock"].with_name("ram.raw").read_bytes())
    used = [at for at in range(0, len(memory), 4096) if any(memory[at : at + 4096])]
    for at in chance.sample(used, len(used) // 20):
        at += chance.randrange(4096 - 64)
        memory[at : at + 64] = chance.randbytes(64)
    image = tmp_path / "damaged.raw"
    image.write_bytes(memory)
    try:
        report = analyze_file(image)
    except NotReadable as problem:
        assert str(problem).isprintable()
        return
    assert [panel.name for panel in report.panels] == list(NAMES)
    notes = [panel.note for panel in report.panels]
    assert not [note for note in notes if note.startswith("internal error")]
    assert report.seconds < 30
    render(report)

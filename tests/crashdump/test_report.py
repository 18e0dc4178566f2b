# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports as data, text and HTML; redaction; panels that fail. No kernel is needed."""

import random
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashdump.analysis import html, redact, report, run
from crashdump.analysis.report import (
    Block,
    Command,
    Facts,
    Lines,
    Panel,
    Report,
    Stack,
    State,
    Table,
    decode,
    encode,
    finished,
)
from crashdump.analysis.run import PanelSpec, run_panel
from crashdump.analysis.subject import Subject
from crashdump.analysis.text import render
from crashdump.incident import Dump, DumpState, Incident
from crashdump.store import IncidentStore
from introspect.errors import MemoryFault
from tests.introspect.elfwriter import elf_core

DOCS = Path(__file__).resolve().parents[2] / "docs" / "analysis.md"
TEXT = st.text(max_size=600)
ROW = st.tuples(TEXT, TEXT)
BLOCK = st.one_of(
    st.builds(Facts, TEXT, st.lists(ROW, max_size=4).map(tuple)),
    st.builds(Table, TEXT, ROW, st.lists(ROW, max_size=4).map(tuple)),
    st.builds(Lines, TEXT, st.lists(TEXT, max_size=4).map(tuple)),
    st.builds(Stack, TEXT, st.lists(TEXT, max_size=4).map(tuple), st.booleans(), TEXT),
)
PANEL = st.builds(
    Panel, TEXT, TEXT, st.sampled_from(State), TEXT,
    blocks=st.lists(BLOCK, max_size=3).map(tuple),
    commands=st.lists(st.builds(Command, TEXT, TEXT), max_size=2).map(tuple),
)  # fmt: skip
REPORTS = st.builds(
    Report, title=TEXT, culprit=TEXT, source=TEXT, host=TEXT,
    panels=st.lists(PANEL, max_size=3).map(tuple),
)  # fmt: skip


class Page(HTMLParser):
    """The elements and text of a page; a browser's view of what was escaped."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@given(REPORTS)
def test_a_finished_report_is_harmless_in_every_rendering(made: Report) -> None:
    done = finished(made)
    text = render(done, commands=True)
    assert text.replace("\n", "").isprintable()
    assert max(map(len, text.split("\n"))) < 4 * report.MAX_TEXT
    assert decode(encode(done)) == done
    page = Page(html.render(redact.redacted(done)))
    assert page.tags.count("script") == 1
    assert not {"img", "a", "iframe", "link", "svg"} & set(page.tags)
    assert {a for a in page.attributes if a.startswith("on")} == set()


def test_markup_in_a_log_is_shown_not_obeyed() -> None:
    hostile = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\u202e"
    made = finished(Report(hostile, panels=(Panel("log", "Log", blocks=(Lines("", (hostile,)),)),)))
    page = Page(html.render(made))
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert any("<script>alert(1)</script>" in text for text in page.text)
    assert "\x1b" not in html.render(made) and "\u202e" not in html.render(made)


def test_long_blocks_are_cut_and_say_so() -> None:
    lines = Lines("many", tuple(map(str, range(5000))))
    many = tuple(Lines("", ("x",)) for _ in range(500))
    done = finished(Report("t", panels=(Panel("a", "A", blocks=(lines, *many)),)))
    (panel,) = done.panels
    first = panel.blocks[0]
    assert isinstance(first, Lines) and len(first.lines) == report.MAX_ROWS
    assert first.heading == f"many ({5000 - report.MAX_ROWS} more lines left out)"
    assert len(panel.blocks) == report.MAX_BLOCKS
    assert panel.state is State.PARTIAL and "more blocks left out" in panel.note


SECRETS = [
    ("mail joe.doe@example.org now", "mail <email-1> now"),
    ("eth0: 52:54:00:12:34:56 up", "eth0: <mac-1> up"),
    ("from 10.1.2.3 to 10.1.2.4 and 10.1.2.3", "from <ip-1> to <ip-2> and <ip-1>"),
    ("v6 fe80::5054:ff:fe12:3456 end", "v6 <ip-1> end"),
    ("root=UUID=01234567-89ab-cdef-0123-456789abcdef", "root=UUID=<uuid-1>"),
    ("quiet luks.password=hunter2 ro", "quiet luks.password=<secret-1> ro"),
    ("x api_key: abc;y", "x api_key: <secret-1>;y"),
    ("Serial Number: ABC1234", "Serial Number: <serial-1>"),
    ("/home/joe/src", "<path-1>/src"),
    ("on web-17 it", "on <host-1> it"),
    # these stay
    ("RIP: 0010:fn+0x45/0x51 [mod]", "RIP: 0010:fn+0x45/0x51 [mod]"),
    ("pci 0000:00:01.0: BAR", "pci 0000:00:01.0: BAR"),
    ("at 12:34:56 today", "at 12:34:56 today"),
    ("Linux 6.1.0-56-cloud-amd64", "Linux 6.1.0-56-cloud-amd64"),
    ("ffff88800a7d4c10 127.0.0.1", "ffff88800a7d4c10 127.0.0.1"),
    ("web-17x web", "web-17x web"),
]


@pytest.mark.parametrize(("text", "expected"), SECRETS)
def test_what_names_someone_is_taken_out(text: str, expected: str) -> None:
    assert redact.Redactor(("web-17",)).text(text) == expected


def test_a_redacted_report_has_neither_host_nor_directory() -> None:
    made = Report(
        "x on db-3", host="db-3", source="/srv/secret/vmcore",
        panels=(Panel("a", "A", commands=(Command("gdb", "gdb /srv/secret/vmcore"),)),),
    )  # fmt: skip
    done = redact.redacted(made)
    assert "db-3" not in encode(done).decode() and "/srv" not in encode(done).decode()
    assert done.source == "vmcore" and done.panels[0].commands[0].line == "gdb vmcore"
    assert done.redacted["host"] >= 1


def subject() -> Subject:
    """Of a kernel in which nothing can be read."""

    def fail(*_: object, **__: object) -> Any:
        raise MemoryFault(0x1000, 8)

    symbols = SimpleNamespace(address=fail, find=fail, addresses=lambda name: [])
    kernel = SimpleNamespace(
        tasks=fail, cpus=fail, u32=fail, u64=fail, read=fail,
        log=fail, object=fail, per_cpu=fail, modules=fail, symbols=symbols,
        release="6.1", build_id="", btf=SimpleNamespace(struct=fail, find=fail), kaslr_offset=0,
    )  # fmt: skip
    return Subject(cast(Any, kernel), {})


def spec(make: Any) -> PanelSpec:
    return PanelSpec("x", "X", make)


def test_a_panel_that_fails_keeps_what_it_had() -> None:
    def half(_: Subject) -> Iterator[Block]:
        yield Lines("", ("first",))
        raise ValueError("no more")

    panel = run_panel(spec(half), subject())
    assert panel.state is State.PARTIAL and panel.blocks == (Lines("", ("first",)),)
    assert panel.note == "internal error, ValueError: no more"


def test_a_panel_that_does_not_end_is_stopped() -> None:
    def endless(_: Subject) -> Iterator[Block]:
        yield Lines("", ("first",))
        while True:
            try:
                time.sleep(0)
            except Exception:
                continue

    panel = run_panel(spec(endless), subject(), 0.1)
    assert panel.state is State.PARTIAL and panel.note == "stopped after 0.1 s"
    assert panel.seconds < 5


def test_the_rest_goes_on_when_nothing_can_be_read() -> None:
    made = subject()
    made.kmsg = "[ 1.000000] Kernel panic - not syncing: out of coffee\n"
    found = run.analyze(made)
    assert found.title == "kernel panic: out of coffee"
    assert [panel.name for panel in found.panels] == list(run.NAMES)
    failed = {panel.name for panel in found.panels if panel.state is State.FAILED}
    assert {"memory", "tasks", "runqueues", "modules"} <= failed
    assert all(panel.note for panel in found.panels if panel.name in failed)
    (log,) = [panel for panel in found.panels if panel.name == "log"]
    assert log.state is State.OK and len(log.blocks) == 2


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty", b"", "too few"),
        ("text", b"hello\n" * 100_000, "no Linux kernel"),
        ("random", random.Random(1).randbytes(3 << 20), "no Linux kernel"),
        ("zeros", bytes(1 << 20), "no Linux kernel"),
        ("elf", b"\x7fELF\x02\x01" + bytes(4096), "not an x86-64 core dump"),
        ("cut", elf_core([(1, 0, bytes(8192))], claimed=10 << 30), "truncated: 10737418240 bytes"),
        ("kdump", b"KDUMP   " + bytes(4096), "damaged"),
    ],
)
def test_what_is_no_dump_is_refused_by_name(
    name: str, data: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    began = time.process_time()
    with pytest.raises(run.NotReadable, match=said) as caught:
        run.analyze_file(path)
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).isprintable()
    assert time.process_time() - began < 5


def test_a_bare_name_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of the message may be the file's name."""
    monkeypatch.chdir(tmp_path)
    Path("text").write_bytes(bytes(8192))
    with pytest.raises(run.NotReadable, match=r"^text: no Linux kernel"):
        run.analyze_file(Path("text"))


def test_an_incident_without_a_dump_has_the_log_s_title(incident_store: IncidentStore) -> None:
    one = incident_store.create(vnode=1, name="a", incarnation=1, reason="panic", crash=True)
    path = incident_store.path(one.id)
    (path / "kmsg.txt").write_text("<0>[    9.000000] Kernel panic - not syncing: no root 0x12\n")
    incident_store.finish(one.id, dump=Dump(DumpState.SKIPPED, reason="no room"))
    found = run.analyze_incident(incident_store, one.id)
    assert found.title == "kernel panic: no root ADDR"
    assert found.panels[0].note == "the dump is skipped"
    (path / "vmcore").write_bytes(b"not a dump" * 100)
    incident_store.update(one.id, dump=Dump(DumpState.DONE, path="vmcore"))
    found = run.analyze_incident(incident_store, one.id)
    assert found.title == "kernel panic: no root ADDR" and "vmcore" in found.panels[0].note


def test_records_of_before_titles_still_load(incident_store: IncidentStore) -> None:
    one = incident_store.create(vnode=1, name="a", incarnation=1, reason="panic", crash=True)
    file = incident_store.path(one.id) / "incident.json"
    old = msgspec.json.decode(file.read_bytes())
    del old["title"]
    assert msgspec.json.decode(msgspec.json.encode(old), type=Incident).title == ""
    row = (msgspec.json.encode(old), one.id)
    incident_store._db.execute("UPDATE incident SET json = ? WHERE id = ?", row)
    assert incident_store.get(one.id).title == ""
    assert incident_store.update(one.id, title="x \x1b").title == "x \\x1b"


def test_the_document_names_every_key_and_panel() -> None:
    text = DOCS.read_text()
    for kind in (Report, Panel, Facts, Table, Lines, Stack, Command):
        for name in kind.__struct_fields__:
            assert re.search(rf"`{name}`", text), f"{kind.__name__}.{name}"
    for name in run.NAMES:
        assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE), name


def test_the_verb_knows_the_panels() -> None:
    from cli.analyze import PANELS

    assert PANELS == run.NAMES

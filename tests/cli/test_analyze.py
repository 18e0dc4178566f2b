# SPDX-License-Identifier: GPL-2.0-or-later
"""analyze and export on a real store and on files that are no dumps."""

import json

import pytest

from crashdump.incident import Dump, DumpState
from crashdump.store import IncidentStore

LOG = "<0>[    9.000000] Kernel panic - not syncing: out of coffee at 10.1.2.3 \x1b[31m\n"


@pytest.fixture
def store(places):
    """Two crashes without a dump and with the same title, one with a dump that is none."""
    with IncidentStore(places / "state") as made:
        for number in range(3):
            one = made.create(vnode=2, name="beta", incarnation=1, reason="panic", crash=True)
            (made.path(one.id) / "kmsg.txt").write_text(LOG)
            skipped = Dump(DumpState.SKIPPED, reason="no room")
            title = "" if number == 2 else "kernel panic: out of coffee at NUM"
            made.finish(one.id, dump=skipped, title=title)
        (made.path(3) / "vmcore").write_bytes(b"\x7fELF" * 999)
        made.update(3, dump=Dump(DumpState.DONE, path="vmcore"))
        yield made


def test_an_incident_is_told_from_its_log(call, store):
    result = call("analyze", "1")
    assert result.code == 0, result.err
    assert result.out.startswith("kernel panic: out of coffee at NUM")
    assert "the dump is skipped" in result.out and "\x1b" not in result.out


def test_json_is_the_report(call, store):
    found = json.loads(call("analyze", "1", "--json").out)
    assert (found["title"], found["incident"], found["schema"]) == (
        "kernel panic: out of coffee at NUM",
        1,
        1,
    )


def test_html_goes_to_a_file_or_stdout_and_is_redacted(call, store, tmp_path):
    out = tmp_path / "report.html"
    result = call("analyze", "1", "--html", str(out))
    assert (result.code, result.out) == (0, "")
    text = out.read_text()
    assert text.startswith("<!doctype html>") and "10.1.2.3" not in text and "&lt;ip-1&gt;" in text
    assert out.stat().st_mode & 0o777 == 0o600
    assert call("analyze", "1", "--html", "-").out == text
    both = call("analyze", "1", "--html", "-", "--json")
    assert both.code == 1 and "both want stdout" in both.err
    assert call("analyze", "1", "--html", str(tmp_path)).code == 1
    assert call("analyze", "1", "--html", str(tmp_path / "no/where.html")).code == 1


def test_a_dump_that_is_none_still_has_a_log(call, store):
    result = call("analyze", "3")
    assert result.code == 0 and "vmcore" in result.out and "out of coffee" in result.out


@pytest.mark.parametrize("data", [b"", b"text\n" * 2000, bytes(8192), b"\x7fELF" * 9999])
def test_a_file_that_is_no_dump_is_one_line(call, places, data):
    path = places / "image"
    path.write_bytes(data)
    result = call("analyze", str(path))
    assert result.code == 1 and result.out == ""
    assert result.err.count("\n") == 1 and "image" in result.err


def test_kernels_are_listed_of_a_file_that_has_some(call, store, places):
    assert call("analyze", "1", "--kernels").code == 2
    path = places / "image"
    path.write_bytes(bytes(8192))
    for more in ((), ("--json",)):
        result = call("analyze", str(path), "--kernels", *more)
        assert result.code == 1 and result.out == ""
        assert result.err.endswith("image: no Linux kernel in this memory\n")


def test_titles_and_recurrence_are_listed(call, store):
    lines = call("incidents").out.splitlines()
    assert lines[0].endswith("TITLE")
    assert lines[1].endswith("kernel panic: out of coffee at NUM (2x)")
    assert "coffee" not in lines[3]
    assert "out of coffee" in call("show", "1").out


def test_export_of_what_is_not_there(call, store, tmp_path):
    result = call("export", "1", "--format", "raw", "-o", str(tmp_path / "x"))
    assert result.code == 4 and "no room" in result.err
    for kind in ("elf", "raw", "kdump"):
        result = call("export", "3", "--format", kind, "-o", str(tmp_path / "x"))
        assert result.code in (1, 5) and result.err.count("\n") == 1
    assert list(tmp_path.glob("*x*")) == []


def test_export_replaces_nothing_unasked(call, store, tmp_path):
    (tmp_path / "x").write_text("mine")
    result = call("export", "3", "--format", "raw", "-o", str(tmp_path / "x"))
    assert result.code == 1 and "--force" in result.err
    assert (tmp_path / "x").read_text() == "mine"


def test_export_shows_what_it_would_do(call, store, tmp_path):
    words = ("export", "3", "--format", "kdump", "--level", "1", "-o", str(tmp_path / "x"))
    line = call(*words, "--dry-run").out
    assert line.startswith("makedumpfile -c -d 1 ") and not (tmp_path / "x").exists()

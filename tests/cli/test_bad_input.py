# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong, missing, extreme and hostile arguments: a documented code, one harmless line."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.main import ENTRIES
from cli.verb import INCIDENT, VNODE

ROOT = Path(__file__).resolve().parents[2]

HOSTILE = [
    "",
    "-1",
    "1e3",
    "0x2",
    "1 2",
    "é",
    "\x1b[2J",
    "\udcff",
    "\u202e2",
    "²",
    "a" * 100_000,
    "../../etc/passwd",
    "$(id)",
    "2\n",
    "9" * 5000,
]

TAKES_VNODE = [
    ("boot", "{}"),
    ("log", "{}"),
    ("console", "{}"),
    ("start", "{}"),
    ("stop", "{}"),
    ("fence", "{}"),
    ("restart", "{}"),
    ("freeze", "{}"),
    ("images", "{}"),
    ("inject", "{}", "panic"),
    ("stage", "{}"),
    ("slots", "{}"),
    ("bless", "{}"),
    ("clear", "{}"),
    ("history", "{}"),
    ("grant", "{}", "--to", "1"),
    ("revoke", "1", "--from", "{}"),
    ("dump", "{}"),
    ("start", "1", "{}"),
]

# (arguments, exit code, words of the line)
WRONG = [
    (("nonsense",), 2, "there is no verb 'nonsense'"),
    (("--nonsense",), 2, "--nonsense"),
    (("status", "extra"), 2, "extra"),
    (("status", "--interval", "0"), 2, "0.1"),
    (("status", "--interval", "nan"), 2, "interval"),
    (("status", "--interval", "inf"), 2, "3600"),
    (("status", "--interval", "x"), 2, "not a valid float"),
    (("boot",), 2, "VNODE"),
    (("boot", "3"), 4, "vnodes here: 1 (alpha), 2 (beta)"),
    (("tui",), 2, "it needs a terminal"),
    (("tui", "extra"), 2, "extra"),
    (("tui", "--web", "--port", "0"), 2, "1<=x<=65535"),
    (("freeze",), 2, "VNODE"),
    (("freeze", "3"), 4, "vnodes here: 1 (alpha), 2 (beta)"),
    (("images", "gamma"), 4, "there is no vnode gamma"),
    (("restart", "1", "--strategy", "tepid"), 2, "cold"),
    (("inject", "1", "stuck", "--wait"), 2, "no incident"),
    (("log",), 2, "name a vnode or an --incident"),
    (("log", "1", "--incident", "1"), 2, "one of them"),
    (("log", "--incident", "1", "-f"), 2, "does not grow"),
    (("log", "1", "--level", "loud"), 2, "loud"),
    (("log", "1", "-n", "-1"), 2, "-1"),
    (("log", "1", "-n", "99999999999"), 2, "range"),
    (("log", "3"), 4, "vnodes here: 1 (alpha), 2 (beta)"),
    (("log", "--incident", "77"), 4, "no incident 77"),
    (("console",), 2, "VNODE"),
    (("console", "gamma"), 4, "there is no vnode gamma"),
    (("incidents", "--since", "yesteryear"), 2, "is no time"),
    (("incidents", "-n", "x"), 2, "x"),
    (("show",), 2, "INCIDENT"),
    (("show", "0"), 2, "no incident number"),
    (("show", "-5"), 2, "-5"),
    (("show", "1"), 4, "no incident 1"),
    (("show", "9" * 40), 2, "no incident number"),
    (("up", "--config", "/nonexistent.toml"), 3, "/nonexistent.toml: no such file"),
    (("up", "--timeout", "0"), 2, "0.1"),
    (("down", "--keep-running", "--unload"), 2, "--unload"),
    (("start",), 2, "VNODE..."),
    (("start", "31"), 4, "there is no vnode 31"),
    (("start", "0"), 4, "vnode 0 is the root"),
    (("stop",), 2, "VNODE..."),
    (("fence",), 2, "VNODE..."),
    (("stop", "1", "--timeout", "1e9"), 2, "86400"),
    (("restart",), 2, "VNODE..."),
    (("restart", "1", "--force", "--foo"), 2, "--foo"),
    (("restart", "1", "--strategy", "kmb"), 2, "--strategy kmb is for --dry-run"),
    (("stage",), 2, "VNODE"),
    (("stage", "nine"), 4, "there is no vnode nine"),
    (("stage", "1", "--slot", "c"), 2, "'a', 'b'"),
    (("slots", "nine"), 4, "no slots of a vnode nine"),
    (("slots", "1", "2"), 2, "2"),
    (("bless",), 2, "VNODE"),
    (("bless", "1", "--slot", "z"), 2, "'a', 'b'"),
    (("clear",), 2, "VNODE..."),
    (("clear", "nine"), 4, "there is no vnode nine"),
    (("events", "--since", "never"), 2, "is no time"),
    (("events", "-n", "-1"), 2, "-1"),
    (("events", "--vnode", "a b"), 2, "neither a vnode's id nor a name"),
    (("history",), 2, "VNODE"),
    (("history", "nine"), 4, "knows no vnode nine"),
    (("config", "chek"), 2, "did you mean check?"),
    (("config", "check", "/nonexistent.toml"), 3, "/nonexistent.toml: no such file"),
    (("config", "check", "a", "b"), 2, "b"),
    (("reload", "x"), 2, "x"),
    (("reload",), 6, "no daemon"),
    (("metrics", "--listen", "0.0.0.0:80"), 2, "neither a loopback"),
    (("metrics", "--listen", "unix:"), 2, "cannot name a socket"),
    (("metrics", "--listen", "127.0.0.1:x"), 2, "is no port"),
    (("metrics", "--listen", "127.0.0.1:99999"), 2, "is no port"),
    (("metrics", "--listen", "unix:/nonexistent/a"), 1, "cannot listen"),
    (("attach",), 2, "name a vnode, a file or an --incident"),
    (("attach", "./none"), 4, "./none: no such file"),
    (("attach", "nine"), 4, "there is no vnode nine"),
    (("attach", "--incident", "9"), 4, "no incident 9"),
    (("attach", "a b"), 2, "neither a vnode's id nor a name"),
    (("gdb-exec",), 2, "name a vnode, a file or an --incident"),
    (("gdb-exec", "./none", "--", "bt"), 4, "./none: no such file"),
    (("gdb-exec", "1"), 2, "name a command for gdb"),
    (("gdb-exec", "1", "--", "bt\nquit"), 2, "a command is one line"),
    (("gdb-exec", "1", "--timeout", "0", "--", "bt"), 2, "0.1"),
    (("dump",), 2, "VNODE"),
    (("dump", "1", "--timeout", "-3"), 2, "-3"),
    (("drgn",), 2, "name a vnode, a file or an --incident"),
    (("drgn", "./none"), 4, "./none: no such file"),
    (("drgn", "nine"), 4, "there is no vnode nine"),
    (("drgn", "--incident", "9"), 4, "no incident 9"),
    (("drgn", "./x", "./none.py"), 4, "./none.py: No such file"),
    (("drgn", "-e", "1", "./x", "./y.py"), 2, "not both"),
    (("analyze",), 2, "FILE|INCIDENT"),
    (("analyze", "./none"), 4, "./none: no such file"),
    (("analyze", "9"), 4, "no incident 9"),
    (("analyze", "9" * 40), 2, "no incident number"),
    (("analyze", "1", "-M", "colours"), 2, "colours"),
    (("analyze", "x" * 9000), 4, "xxx"),
    (("export", "9", "--format", "elf"), 4, "no incident 9"),
    (("export", "1"), 2, "--format"),
    (("export", "1", "--format", "zip"), 2, "zip"),
    (("export", "1", "--format", "elf", "--level", "32"), 2, "32"),
    (("grant",), 2, "VNODE"),
    (("grant", "1"), 2, "--to"),
    (("grant", "nine", "--to", "1"), 4, "there is no vnode nine"),
    (("grant", "1", "--to", "nine"), 4, "there is no vnode nine"),
    (("revoke", "1"), 2, "--from"),
    (("revoke", "nine", "--from", "1"), 4, "there is no vnode nine"),
    (("attach", "--stop", "--read-only", "1"), 2, "exclude each other"),
    (("inject",), 2, "VNODE"),
    (("inject", "1"), 2, "KIND"),
    (("inject", "1", "meteor"), 2, "meteor"),
    (("inject", "1", "panic", "--cpu", "16"), 2, "16"),
    (("inject", "1", "panic", "--cpu", "1"), 2, "has 1 CPU(s)"),
    (("inject", "1", "oops", "--cpu", "0"), 2, "for a panic only"),
    (("doctor", "x"), 2, "x"),
    (("successor",), 4, "seen by its successor alone"),
    (("successor", "--limit", "0"), 2, "0.3"),
    (("box", "ups"), 2, "did you mean up?"),
    (("box", "up", "--memory", "lots"), 2, "lots"),
    (("box", "up", "--memory", "1G"), 2, "2G or more"),
    (("box", "up", "--cpus", "1"), 2, "2<=x<=16"),
    (("box", "up", "--accel", "xen"), 2, "xen"),
    (("box", "exec"), 2, "CMD..."),
    (("box", "exec", "--", "true"), 6, "the box is down"),
    (("box", "shell"), 6, "the box is down"),
    (("box", "log"), 4, "no such log yet"),
    (("box", "log", "kernel"), 2, "kernel"),
    (("box", "console"), 4, "no such log yet"),
    (("daemon", "--config", "/nonexistent.toml"), 3, "/nonexistent.toml: no such file"),
    (("completion",), 2, "Choose from: bash, zsh, fish"),
    (("completion", "tcsh"), 2, "tcsh"),
    (("--host",), 2, "--host"),
    (("--host", "-x", "status"), 2, "USER@MACHINE"),
    (("--host", "a", "daemon"), 2, "works on this machine"),
]


def is_one_harmless_line(err):
    """One line by us, fit for a terminal."""
    line, newline, rest = err.partition("\n")
    ours = line.startswith("vnode-debug: ") and len(line) < 1100
    return ours and line.isprintable() and newline and not rest


@pytest.mark.parametrize(("words", "code", "text"), WRONG, ids=lambda v: str(v)[:40])
def test_wrong_arguments(call, world, words, code, text):
    result = call(*words, world=world)
    assert result.code == code, result.err
    assert is_one_harmless_line(result.err), result.err
    assert text in result.err
    assert result.out == ""


@pytest.mark.parametrize("word", HOSTILE, ids=lambda word: ascii(word)[:24])
@pytest.mark.parametrize("words", TAKES_VNODE, ids=lambda words: words[0])
def test_hostile_vnode_names(call, world, words, word):
    result = call(*(part.format(word) for part in words), world=world)
    assert result.code in (2, 4), result.err
    assert is_one_harmless_line(result.err)
    assert result.out == ""


@pytest.mark.parametrize("verb", sorted(ENTRIES))
@pytest.mark.parametrize("word", ["--\x1b[2J", "--" + "x" * 50_000, "-\udcff", "---", "--json=7"])
def test_hostile_options(call, world, verb, word):
    result = call(verb, word, world=world)
    assert result.code == 2
    assert is_one_harmless_line(result.err)
    assert result.out == ""


@given(st.text())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_vnode_reference_or_a_usage_error(text):
    for kind in (VNODE, INCIDENT):
        try:
            kind.convert(text, None, None)
        except click.UsageError:
            continue
        assert text.isascii() and text.isprintable()


def test_every_verb_is_in_the_tables():
    tested = {words[0] for words, _, _ in WRONG}
    assert set(ENTRIES) <= tested
    box = import_module("cli.box").command
    assert {words[1] for words, _, _ in WRONG if words[0] == "box" and len(words) > 1} >= (
        set(box.commands) - {"down", "status"}
    )


@pytest.mark.parametrize("words", [("status",), ("stop", "1"), ("log", "1"), ("attach", "1")])
def test_no_machine_is_one_line_of_a_real_process(places, words):
    done = subprocess.run(
        [sys.executable, str(ROOT / "vnode_debug.py"), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if Path("/dev/kmb").exists():
        pytest.skip("this machine has a /dev/kmb")
    assert (done.returncode, done.stdout) == (5, "")
    assert is_one_harmless_line(done.stderr)


def test_bytes_that_are_no_text_as_arguments_of_a_real_process(places):
    words = [
        os.fsencode(sys.executable),
        os.fsencode(ROOT / "vnode_debug.py"),
        b"show",
        b"\xff\x1b",
    ]
    done = subprocess.run(words, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert is_one_harmless_line(done.stderr.decode("ascii"))


def test_an_unreadable_root_bridge_is_told(call, world):
    world.root.view[8] = 99  # the ABI version
    result = call("status", world=world)
    assert result.code == 1
    assert is_one_harmless_line(result.err)


def test_a_damaged_box_record_does_not_hide_the_way_out(call, places):
    (places / "box").mkdir()
    (places / "box/box.json").write_text("{")
    assert call("status").code == 5
    result = call("box", "status")
    assert result.code == 1
    assert is_one_harmless_line(result.err)


@pytest.mark.parametrize("data", [b"", b"x", b"\x7fELF", bytes(1 << 20), b"\x7fELF" * 9999])
def test_a_file_that_holds_no_kernel(call, places, data):
    (places / "image").write_bytes(data)
    result = call("attach", str(places / "image"))
    assert result.code not in (0, 2)
    assert is_one_harmless_line(result.err), result.err
    assert "image" in result.err

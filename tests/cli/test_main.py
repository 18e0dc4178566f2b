# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a whole: the overview, help, errors as one line, start-up time."""

import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import click
import pytest

from cli.errors import CliError, ExitCode, NotFound
from cli.main import ENTRIES, GROUPS, explain, overview
from watchdog.errors import ConfigError, Mistake

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = [sys.executable, str(ROOT / "vnode_debug.py")]


def commands():
    """(words, click command) of every verb and verb of a verb."""
    for entry in ENTRIES.values():
        command = import_module(entry.module).command
        yield (entry.name,), command
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield (entry.name, name), inner


ALL = [pytest.param(words, command, id=" ".join(words)) for words, command in commands()]


def test_bare_command_lists_the_verbs_by_purpose(call):
    result = call()
    assert result.code == 0
    for title, entries in GROUPS:
        assert f"{title}:" in result.out
        for entry in entries:
            assert f"  {entry.name} " in result.out


def test_the_overview_says_what_each_verb_says():
    for entry in ENTRIES.values():
        command = import_module(entry.module).command
        assert command.name == entry.name
        assert command.help.splitlines()[0] == entry.summary


@pytest.mark.parametrize(("words", "command"), ALL)
def test_help_opens_with_examples_of_the_verb(call, words, command):
    result = call(*words, "--help")
    assert result.code == 0
    assert command.examples
    before, usage, _ = result.out.partition("Usage:")
    assert usage
    for example in command.examples:
        assert example in before
        assert " ".join(["vnode-debug", *words]) in example or isinstance(command, click.Group)


@pytest.mark.parametrize(("words", "command"), ALL)
def test_every_verb_with_a_result_has_json(words, command):
    terminal_verbs = {
        ("box", "shell"),
        ("box", "exec"),
        ("box", "console"),
        ("completion",),
        ("daemon",),
        ("drgn",),
        ("tui",),
    }
    if isinstance(command, click.Group) or words in terminal_verbs:
        return
    assert "--json" in [name for option in command.params for name in option.opts]


@pytest.mark.parametrize("verb", ["down", "stop", "restart", "inject"])
def test_destructive_verbs_have_a_dry_run(verb):
    command = import_module(ENTRIES[verb].module).command
    assert "--dry-run" in [name for option in command.params for name in option.opts]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("statsu", "status"),
        ("Start", "start"),
        ("atach", "attach"),
        ("incident", "incidents"),
    ],
)
def test_did_you_mean(call, typed, meant):
    result = call(typed)
    assert result.code == 2
    assert f"did you mean {meant}?" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (NotFound("no vnode 9"), 4, "no vnode 9"),
        (
            FileNotFoundError(2, "No such file or directory", "/x"),
            1,
            "/x: No such file or directory",
        ),
        (OSError(28, "No space left on device"), 8, "No space left on device"),
        (ValueError("bad\nthing"), 1, "internal error, ValueError: bad\nthing"),
    ],
)
def test_each_failure_has_a_code_and_a_text(error, code, text):
    assert explain(error)[0] == code
    assert explain(error)[1].startswith(text)


def test_all_error_trees_have_documented_codes():
    codes = {code.value for code in ExitCode}
    for package in ("adeos", "box", "cli", "crashdump", "debugger", "introspect", "watchdog"):
        module = import_module(f"{package}.errors")
        errors = [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, Exception)
        ]
        assert errors
        assert {error.exit_code for error in errors if hasattr(error, "exit_code")} <= codes


def test_hostile_text_in_an_error_stays_on_one_harmless_line(call, monkeypatch):
    def fail(**_):
        raise CliError("bad \x1b[2J thing\u202e")

    monkeypatch.setattr(import_module("cli.doctor").machine_check, "gather", fail)
    result = call("doctor", "--here")
    assert result.err == "vnode-debug: bad \\x1b[2J thing\\u202e\n"
    assert result.code == 1


def test_a_config_error_has_a_line_a_mistake(call, monkeypatch):
    def fail(**_):
        raise ConfigError(Path("c"), [Mistake(1, "a", "x"), Mistake(None, "", "y")])

    monkeypatch.setattr(import_module("cli.doctor").machine_check, "gather", fail)
    assert call("doctor", "--here").err == "vnode-debug: c: y\nvnode-debug: c:1: a: x\n"


def test_a_reader_that_goes_away_is_no_error(places):
    process = subprocess.Popen(
        [*LAUNCHER, "doctor", "--here"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == ExitCode.PIPE


def test_help_imports_neither_the_packages_nor_what_they_need():
    code = (
        "import sys; sys.argv = ['vnode-debug', '--help']\n"
        "import vnode_debug\n"
        "try: vnode_debug.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    heavy = {"msgspec", "asyncio", "elftools", "capstone", "sqlite3", "subprocess", "json.tool"}
    assert not loaded & heavy
    ours = {
        name
        for name in loaded
        if name.partition(".")[0]
        in ("box", "crashdump", "debugger", "introspect", "kexec_restart", "watchdog")
    }
    assert not ours
    assert len([name for name in loaded if name.startswith("cli.")]) <= 6


def seconds(words):
    """The least of five runs: what it costs when nobody else is in the way."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True, timeout=60)
        times.append(time.perf_counter() - begin)
    return min(times)


def test_help_costs_a_few_bare_interpreters():
    # Measured: 4.1 times; 0.062 s where "python -c pass" takes 0.015 s.
    bare = seconds([sys.executable, "-c", "pass"])
    assert seconds([*LAUNCHER, "--help"]) < 10 * bare


def test_version(call):
    assert call("--version").out.startswith("vnode-debug ")


def test_the_parser_itself_is_sound():
    with click.Context(overview) as context:
        for _, command in commands():
            assert command.get_short_help_str()
            assert command.get_usage(context)


def test_traceback_on_request(places):
    environment = {**os.environ, "VNODE_DEBUG_TRACEBACK": "1"}
    done = subprocess.run(
        [*LAUNCHER, "show", "x"], capture_output=True, text=True, env=environment, timeout=60
    )
    assert "Traceback" in done.stderr

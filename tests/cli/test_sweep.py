# SPDX-License-Identifier: GPL-2.0-or-later
"""Every option and argument of every verb with hostile values, made from click's own types.

A new verb or option is swept without a line here.  Nothing is started: what a verb would run (gdb,
QEMU, a server that listens) ends in Stopped, which counts as "the value was taken".
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from importlib import import_module

import click
import pytest

import cli.main
from cli.errors import ExitCode
from cli.main import ENTRIES

LONG = "x" * 100_000
ANY = ("", "-", "--", "\x1b[2J", "a\nb", "\udcff", "\u202ex", "\x9b2J", "é", LONG)
NUMBERS = ("-1", "1e999", "nan", "inf", "0x10", "²", "1_0", " 1", "9" * 5000, "-" + "9" * 400, "0")
PATHS = ("{dir}", "{fifo}", "{socket}", "{loop}", "{dir}/none/none", "/dev/null", "/dev/zero",
         "{noise}", "../../../../etc/passwd")  # fmt: skip
GOOD = {"vnode": "1", "incident": "1", "choice": None, "text": "x"}
SECONDS = 5.0
"""No case here has a reason to take longer; a verb that waits for ever is ended and told."""


class Stopped(click.ClickException):
    """A verb went as far as starting another program or a server."""

    exit_code = 0


class NoProgram(subprocess.Popen):
    """Popen that starts nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        raise Stopped("taken")

    def __del__(self) -> None:
        """Nothing was started."""


class Stuck(BaseException):
    """A case did not end."""


def leaves(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from leaves((*words, name), one)
    else:
        yield words


def command_of(words: Sequence[str]) -> click.Command:
    command = import_module(ENTRIES[words[0]].module).command
    for word in words[1:]:
        command = command.commands[word]
    return command


VERBS = [leaf for name in ENTRIES for leaf in leaves((name,), command_of((name,)))]


def good(param: click.Parameter) -> str:
    """A value that param takes."""
    if isinstance(param.type, click.Choice):
        return str(param.type.choices[0])
    return GOOD.get(param.type.name, "1")


def hostile(param: click.Parameter) -> Iterator[str]:
    yield from ANY
    if isinstance(param.type, click.types.IntParamType | click.types.FloatParamType):
        yield from NUMBERS
    elif not isinstance(param.type, click.Choice):
        yield from (*NUMBERS, *PATHS)


def required(command: click.Command, but: click.Parameter | None = None) -> list[str]:
    """Words that fill what must be given, but that parameter."""
    words: list[str] = []
    for param in command.params:
        if param.required and param is not but:
            word = good(param)
            words += [word] if isinstance(param, click.Argument) else [param.opts[0], word]
    return words


def cases(command: click.Command) -> Iterator[list[str]]:
    """Command lines, each with one hostile word."""
    flags = [p for p in command.params if isinstance(p, click.Option) and p.is_flag]
    for param in command.params:
        if param in flags:
            yield [*required(command), f"{param.opts[0]}=\x1b[2J"]
            continue
        for value in hostile(param):
            if isinstance(param, click.Option):
                yield [*required(command, param), f"{param.opts[0]}={value}"]
                yield [*required(command, param), param.opts[0], value]
                continue
            # Arguments keep their order; "--" makes a value of what looks like an option.
            words = []
            for other in command.params:
                if other is param:
                    words.append(value)
                elif isinstance(other, click.Argument) and other.required:
                    words.append(good(other))
            options = [word for p in command.params if isinstance(p, click.Option) and p.required
                       for word in (p.opts[0], good(p))]  # fmt: skip
            yield [*options, "--", *words]
            if not value.startswith("-"):
                yield [*words, *options]
    for param in command.params:
        if param.required:
            yield required(command, param)
        if isinstance(param, click.Option) and not param.is_flag:
            yield [*required(command), param.opts[0]]


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program, no server, no terminal."""

    def stop(*_: object, **__: object) -> None:
        raise Stopped("taken")

    for name in ("execv", "execve", "execvp", "execvpe", "posix_spawn", "fork", "forkpty", "kill"):
        monkeypatch.setattr(os, name, stop)
    monkeypatch.setattr(subprocess, "Popen", NoProgram)
    for place in ("cli.exporter.serve", "watchdog.daemon.main", "debugger.attach.attach",
                  "box.machine.up", "debugger.mi.execute",
                  "watchdog.successor.Lookout"):  # fmt: skip
        module, _, name = place.rpartition(".")
        monkeypatch.setattr(import_module(module), name, stop)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115,PTH123


@pytest.fixture
def hostile_places(places, tmp_path_factory):
    """What {dir}, {fifo} and the rest of PATHS stand for."""
    import socket

    spot = tmp_path_factory.mktemp("p")
    os.mkfifo(spot / "fifo")
    (spot / "loop").symlink_to(spot / "loop")
    (spot / "noise").write_bytes(os.urandom(4096))
    (spot / "dir").mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(spot / "socket"))
    return {name: str(spot / name) for name in ("dir", "fifo", "socket", "loop", "noise")}


def complaint(words: list[str], result) -> str:
    """What is wrong with how a command line ended, "" when nothing is."""
    text = result.err
    if result.code not in {code.value for code in ExitCode}:
        return f"undocumented exit code {result.code}"
    if "internal error" in text or "Traceback" in text:
        return "a bug shows"
    unfit = [char for char in result.out + text if not char.isprintable() and char not in "\n\t"]
    if unfit:
        return f"{unfit[0]!r} in the output"
    lines = text.splitlines()
    if result.code and not lines:
        return "fails without a word"
    if len(lines) > 1 and result.code not in (0, ExitCode.CONFIG):
        return f"{len(lines)} lines"
    if result.code and not all(line.startswith("vnode-debug: ") for line in lines):
        return "a line that is not ours"
    if any(len(line) > 1100 for line in lines):
        return "a line too long"
    return ""


@pytest.mark.parametrize("daemon", ["daemon", "no daemon", "no machine"])
@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_hostile_values(call, world, words, daemon, nothing_starts, hostile_places, request):
    def end(*_: object) -> None:
        raise Stuck

    if daemon == "daemon":
        request.getfixturevalue("answering")
    machine = None if daemon == "no machine" else world
    before = signal.signal(signal.SIGALRM, end)
    wrong = []
    try:
        for case in cases(command_of(words)):
            line = [*words, *(word.format(**hostile_places) if word[:1] != LONG[:1] else word
                              for word in case)]  # fmt: skip
            shown = [ascii(word)[:60] for word in line]
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                what = complaint(line, result := call(*line, world=machine))
            except Stuck:
                wrong.append(f"{shown}: does not end")
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if what:
                wrong.append(f"{shown}: {what}: {result.code} {result.err[:300]!r}")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong[:20])


@pytest.fixture
def answering(monkeypatch, places):
    """A daemon that says no to everything but in words that a vnode might have put there."""
    from watchdog.client import Client, CommandError

    def say(self, verb, *, timeout=None, **args):
        raise CommandError(f"{verb}: no \x1b[2J\n{'y' * 5000}", 6)

    monkeypatch.setattr(Client, "call", say)


def test_the_sweep_is_of_every_verb_and_value() -> None:
    assert {words[0] for words in VERBS} == set(ENTRIES)
    assert sum(1 for words in VERBS for _ in cases(command_of(words))) > 1500
    assert cli.main.LINE_MAX < 1100

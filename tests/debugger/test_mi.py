# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb commands for scripts, by real gdbs on a whole kernel; then the verb on its dump."""

import json
import time
from pathlib import Path

import pytest

from bench import rsp_guest
from bench.rsp_guest import Guest
from cli.main import run
from debugger import mi
from debugger.errors import GdbFailed, GdbTimedOut
from tests.debugger.conftest import GDBS

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(bool(rsp_guest.missing()), reason=rsp_guest.missing()),
]


@pytest.mark.parametrize("program", GDBS)
def test_an_answer_for_each_command(guest: Guest, program: str) -> None:
    commands = ["p init_task.comm", "bogus", "-thread-info", 'echo "\\n', "vnode log 1"]
    commands += ["vnode nosuch", "stepi"]
    answers = list(mi.execute(guest.target, commands, timeout=120, program=program))
    assert [answer.command for answer in answers] == commands
    shown, bogus, threads, echoed, log, nosuch, stepped = answers
    assert (shown.console, shown.error) == (
        '$1 = "swapper/0\\000\\000\\000\\000\\000\\000"\n',
        None,
    )
    assert bogus.error is not None and bogus.error.startswith('Undefined command: "bogus"')
    assert [row["details"] for row in threads.results["threads"]] == [
        "CPU 0 running [sampled]",
        "CPU 1 running [sampled]",
    ]
    assert echoed.console == '"\n'
    assert log.console.startswith("[") and log.console.count("\n") == 1
    assert nosuch.error == "no such command: try `monitor help`"
    assert stepped.results["stopped"]["signal-name"] == "SIGINT"
    assert "cannot be stepped" in stepped.console


def test_the_time_is_over(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = ["p 1", "continue"]  # which waits until something happens
    ask = mi._Conversation.ask

    def hurried(conversation: mi._Conversation, command: str) -> mi.Answer:
        if command == "continue":  # connecting took what this host needs for it
            conversation._end = time.monotonic() + 1
        return ask(conversation, command)

    monkeypatch.setattr(mi._Conversation, "ask", hurried)
    answers = mi.execute(guest.target, commands, timeout=300)
    assert next(answers).console == "$1 = 1\n"
    with pytest.raises(GdbTimedOut, match="--timeout"):
        next(answers)


def test_gdb_dies(guest: Guest) -> None:
    with pytest.raises(GdbFailed, match="gdb ended early"):
        list(mi.execute(guest.target, ["shell kill -9 $PPID", "p 1"], timeout=60))


def test_the_verb_in_json(vmcore: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gdb-exec", str(vmcore), "--json", "--", "p panic_cpu", "p nosuch"]) == 1
    told = capsys.readouterr()
    good, bad = json.loads(told.out)["commands"]
    assert good["console"] in ("$1 = 0\n", "$1 = 1\n") and good["error"] is None
    assert bad["error"] == 'No symbol "nosuch" in current context.'
    assert told.err.splitlines()[-1] == (
        'vnode-debug: p nosuch: No symbol "nosuch" in current context. (1 of 2 failed)'
    )


def test_the_verb_for_people(vmcore: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gdb-exec", str(vmcore), "--", "vnode crash", "echo \\033[31m\\n", "-list-features"]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("(gdb) vnode crash\nkernel panic: sysrq triggered crash\n")
    assert "\\x1b[31m" in out and "\x1b" not in out
    assert '"features": [' in out
    assert run(["gdb-exec", str(vmcore), "--timeout", "4", "--", "shell sleep 60"]) == 7

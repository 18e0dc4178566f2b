# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs verbs in the box, each in a fork of a process that has imported them already.

Importing takes two seconds of the root's only CPU under emulation, several hundred times a test
run.  Reads a JSON list of arguments a line, answers a line: exit code, output, messages.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib import import_module


def preload() -> None:
    from cli import main

    for entry in main.ENTRIES.values():
        import_module(entry.module)
    for name in ("watchdog.client", "crashdump.store", "adeos.kmb", "adeos.bridge"):
        import_module(name)


def answer(arguments: list[str]) -> dict[str, object]:
    from cli.main import run

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = 70
            try:
                code = run(arguments)
                sys.stdout.flush()
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"code": status, "stdout": texts[0], "stderr": texts[1]}


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    preload()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()

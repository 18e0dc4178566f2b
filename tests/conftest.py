# SPDX-License-Identifier: GPL-2.0-or-later
"""The `box` fixture: one QEMU machine for all tests of a run that want real kernels.

VNODE_DEBUG_BOX_REUSE=1 takes the box that runs already (that of $VNODE_DEBUG_BOX, else that of the
checkout) and leaves it running.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine makes the time of a single example meaningless.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class Verbs:
    """`vnode-debug` in the box without its two seconds of imports: see verb_server.py."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        with self._lock:
            server = self._server = self._server or self._start()
            assert server.stdin is not None and server.stdout is not None
            server.stdin.write(json.dumps(list(words)) + "\n")
            server.stdin.flush()
            if not select.select([server.stdout], [], [], timeout)[0]:
                self.close()
                raise subprocess.TimeoutExpired(list(words), timeout)
            line = server.stdout.readline()
            assert line, "the verb server ended"
            found = json.loads(line)
        return subprocess.CompletedProcess(
            list(words), found["code"], found["stdout"], found["stderr"]
        )

    @staticmethod
    def _start() -> subprocess.Popen[str]:
        from box import machine

        line = "cd /opt/vnode-debug && PYTHONPATH=. exec python3 -u tests/verb_server.py"
        argv = machine.exec_argv(["sh", "-c", line], tty=False)
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.kill()
            server.wait()


class RunningBox:
    """The root vnode of a running box, as tests use it."""

    def __init__(self) -> None:
        self.verbs = Verbs()

    def verb(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs `vnode-debug WORDS` without a terminal and without input."""
        return self.verbs.run(words, timeout)

    def run(
        self, command: str | Sequence[str], timeout: float = 60, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a shell line, or words as they are; the caller looks at returncode."""
        from box import machine

        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        return machine.run(words, stdin=input or "", timeout=timeout)

    def check(self, command: str | Sequence[str], timeout: float = 60) -> str:
        """Output of a command that must succeed."""
        done = self.run(command, timeout)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def put(self, source: Path, target: str) -> None:
        """Copies a file of the host into the box."""
        from box import machine

        argv = machine.exec_argv(["sh", "-c", 'cat >"$0"', target], tty=False)
        with source.open("rb") as data:
            subprocess.run(argv, stdin=data, check=True, timeout=300)

    def get(self, source: str, target: Path) -> None:
        """Copies a file of the box to the host."""
        from box import machine

        argv = machine.exec_argv(["cat", source], tty=False)
        with target.open("wb") as out:
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, check=True, timeout=300)

    def monitor(self, command: str) -> str:
        """Output of a command of QEMU's human monitor."""
        from box import machine

        return machine.monitor(command)


@pytest.fixture(scope="session")
def box_type() -> type[RunningBox]:
    """For a test that boots a box of its own."""
    return RunningBox


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "box" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.box)
        elif item.get_closest_marker("box"):
            item.add_marker(pytest.mark.guest)


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBox]:
    """A box of this test run alone: both 6.1 kernels in its /boot, vnode memory above 4 GiB too."""
    from box import machine

    if os.environ.get("VNODE_DEBUG_BOX_REUSE") == "1" and machine.running():
        running = RunningBox()
        yield running
        running.verbs.close()
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VNODE_DEBUG_BOX", str(tmp_path_factory.mktemp("box")))
        options = machine.Options(
            memory=6 << 30, vnode_kernels=("cloud", "amd64"), die_with_parent=True
        )
        machine.up(options, print)
        running = RunningBox()
        try:
            yield running
        finally:
            running.verbs.close()
            machine.down(print)

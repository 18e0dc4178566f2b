# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in the box, for what measures or proves something there."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from box import machine


def say(text: str) -> None:
    """A line for who waits."""
    print(text, file=sys.stderr, flush=True)


def in_box(words: Sequence[str], stdin: str = "", timeout: float = 200) -> str:
    """Output of a command in the box; SystemExit with its words when it fails."""
    done = machine.run(words, stdin=stdin, timeout=timeout)
    if done.returncode:
        raise SystemExit(f"in the box: {' '.join(words)}: {done.stderr.strip()[-400:]}")
    return done.stdout


def machine_toml() -> str:
    """What the box's own vnodes.toml says of the machine: all but the vnodes."""
    return in_box(["cat", "/etc/vnode-debug/vnodes.toml"]).partition("\n[[vnode]]")[0]


def up(config: str, text: str, seconds: int) -> None:
    """The vnodes of `text`, in a file of the box, in the place of those that run."""
    in_box(["sh", "-c", f"cat >{config}; vnode-debug down --timeout 60 2>/dev/null || true"], text)
    words = ["vnode-debug", "up", "--config", config, "--wait", "--timeout", str(seconds)]
    in_box(words, timeout=seconds + 100)

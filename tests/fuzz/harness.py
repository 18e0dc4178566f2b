# SPDX-License-Identifier: GPL-2.0-or-later
"""What the fuzzers share: TARGET and atheris's options from the command line, the first corpus."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import atheris

Target = tuple[Callable[[bytes], None], Callable[[], Iterable[bytes]]]
"""What takes the bytes, and what makes the seeds."""


def main(doc: str | None, targets: Mapping[str, Target], ours: tuple[type[Exception], ...]) -> None:
    """Fuzz the target named first; `ours` are the errors that it may raise."""
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        raise SystemExit(f"{doc}\nTARGETS: {', '.join(targets)}")
    target, seeds = targets[sys.argv[1]]

    def one(data: bytes) -> None:
        try:
            target(data)
        except ours:
            pass

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds()):
            (Path(corpus) / f"seed{number}").write_bytes(seed)
        options = ["-timeout=10", "-max_len=65536", *sys.argv[2:], corpus]
        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()

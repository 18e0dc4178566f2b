# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fuzz target still fits the code that it fuzzes: it takes its own seeds."""

from __future__ import annotations

import contextlib
import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest

DAEMONS = {"control"}
"""Targets that start a daemon, which runs as long as its process."""
MODULES = ("fuzz_debugger", "fuzz_introspect", "fuzz_machine")


@pytest.mark.parametrize("name", MODULES)
def test_targets_take_their_seeds(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without atheris, which only instruments and draws."""
    no_instruments = SimpleNamespace(instrument_imports=lambda **_: contextlib.nullcontext())
    monkeypatch.setitem(sys.modules, "atheris", no_instruments)
    monkeypatch.delitem(sys.modules, f"tests.fuzz.{name}", raising=False)
    module: Any = importlib.import_module(f"tests.fuzz.{name}")
    for target, seeds in (module.TARGETS[key] for key in module.TARGETS.keys() - DAEMONS):
        for seed in (b"", *seeds()):
            with contextlib.suppress(*module.OURS):
                target(seed)

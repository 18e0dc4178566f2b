# SPDX-License-Identifier: GPL-2.0-or-later
"""kmb.ko's parameters out of the config, and a loaded module that has others."""

from __future__ import annotations

import pytest

from watchdog import module
from watchdog.config import Config, MachineConfig
from watchdog.errors import ModuleError
from watchdog.loan import Loan

MACHINE = MachineConfig(
    memory=("0x20000000+0x1000000", "0x140000000+0x1000000"), low="0x10000+0x50000", cpus=(1, 2, 3)
)


@pytest.fixture(autouse=True)
def run_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("VNODE_DEBUG_RUN", str(tmp_path / "run"))


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """A machine on which kmb.ko is loaded with the parameters given."""

    def make(**parameters: str) -> None:
        for name, value in parameters.items():
            (tmp_path / name).write_text(value + "\n")
        (tmp_path / "kmb").touch()
        monkeypatch.setattr(module, "DEVICE", tmp_path / "kmb")
        monkeypatch.setattr(module, "_PARAMETERS", tmp_path)

    return make


def test_parameters() -> None:
    assert module.parameters(MACHINE) == [
        "mem=0x20000000+0x1000000,0x140000000+0x1000000",
        "low=0x10000+0x50000",
        "cpus=1,2,3",
    ]
    assert module.parameters(MachineConfig()) == []


def test_a_loaded_module_is_left_alone_when_it_matches(loaded) -> None:
    loaded(mem=",".join(MACHINE.memory), low=MACHINE.low, cpus="1-3")
    assert module.load(Config(machine=MACHINE)) is False


def test_a_loaded_module_with_other_parameters_is_refused(loaded) -> None:
    loaded(cpus="1-2")
    with pytest.raises(ModuleError, match="cpus=1-2, the config wants 1,2,3") as caught:
        module.load(Config(machine=MACHINE))
    assert caught.value.exit_code == 5


def test_nothing_loaded_and_nothing_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "DEVICE", tmp_path / "kmb")
    with pytest.raises(ModuleError, match="is missing"):
        module.load(Config(machine=MACHINE))
    assert module.unload() == Loan()

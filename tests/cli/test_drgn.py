# SPDX-License-Identifier: GPL-2.0-or-later
"""What code given to the drgn verb finds, and what becomes of its failures."""

import drgn
import pytest

from cli.drgn import run
from cli.errors import CliError


def test_helpers_without_a_program_take_the_one_that_was_opened(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("from drgn import get_default_prog; print(get_default_prog() is prog)", "x", drgn.Program())
    assert capsys.readouterr().out == "True\n"
    with pytest.raises(drgn.NoDefaultProgramError):
        drgn.get_default_prog()


def test_a_failure_of_the_code_is_one_line() -> None:
    with pytest.raises(CliError, match=r"^x: ZeroDivisionError: division by zero$"):
        run("1 / 0", "x", drgn.Program())

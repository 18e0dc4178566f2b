# SPDX-License-Identifier: GPL-2.0-or-later
"""RCU's grace period: kernel/rcu/rcu.h and kernel/rcu/tree.h of Linux 6.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from introspect.kernel import Kernel
    from introspect.object import Object

STATE_MASK = 3
"""RCU_SEQ_STATE_MASK: a grace period is in progress."""


def state(kernel: Kernel) -> Object:
    """struct rcu_state."""
    return kernel.object("rcu_state", "struct rcu_state")


def sequence(kernel: Kernel) -> tuple[int, bool]:
    """gp_seq as it stands, and whether a grace period is in progress."""
    value = state(kernel).member_("gp_seq").value_()
    return value, bool(value & STATE_MASK)

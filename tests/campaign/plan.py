# SPDX-License-Identifier: GPL-2.0-or-later
"""Which fault comes when, where and under what load: pure, and the same for the same seed.

A shot depends on the seed and its number alone, so any one can be repeated without the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from tests.campaign.catalogue import CATALOGUE

DELAY_S = 0.4  # the most that is waited before a fault


class Shot(NamedTuple):
    """`vnodes`: in the order in which they fail; a fault of one vnode takes the first.

    `delay`: seconds before it; `load`: the first vnode works hard meanwhile.
    """

    index: int
    fault: str
    vnodes: tuple[int, ...]
    delay: float
    load: bool


def shot(seed: int, index: int, vnodes: Sequence[int], faults: Sequence[str] = ()) -> Shot:
    """Shot `index` (from 0) of a campaign over `faults`, all by default.

    Faults come as from a deck that is shuffled anew when it is used up, so each comes as often as
    any other, give or take one.
    """
    deck = list(faults) or [fault.name for fault in CATALOGUE]
    turn, place = divmod(index, len(deck))
    random.Random(f"{seed}/deck/{turn}").shuffle(deck)
    chance = random.Random(f"{seed}/shot/{index}")
    first = index % len(vnodes)  # never twice the same in a row: the other's dump is being written
    others = [one for one in vnodes if one != vnodes[first]]
    chance.shuffle(others)
    return Shot(
        index,
        deck[place],
        (vnodes[first], *others),
        round(chance.random() * DELAY_S, 3),
        chance.random() < 0.5,
    )

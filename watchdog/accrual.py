# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits that follow the beats: the phi-accrual failure detector, turned into deadlines.  Pure.

N. Hayashibara, X. Defago, R. Yared, T. Katayama: "The phi Accrual Failure Detector" (2004): phi
of a silence is -log10 of the chance that a beat comes still later, with gaps between beats taken
as normally distributed.  It grows with the silence, so "phi > threshold" is "silence > mean +
k * deviation" with one k for each threshold: no logarithm is taken while watching.
Times are TSC cycles.
"""

from __future__ import annotations

import math

SAMPLES = 64
"""Gaps remembered, by exponential forgetting; as many are awaited before the first judgement."""


def sigmas(phi: float) -> float:
    """Deviations beyond the mean at which `phi` is reached, of a normal distribution; phi > 0."""
    low, high = -10.0, 38.0  # erfc is 0 in a float beyond that
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 * math.erfc(middle / math.sqrt(2)) > 10.0**-phi:
            low = middle
        else:
            high = middle
    return high


class Gaps:
    """The gaps between the beats of one layer of one CPU.

    `pause`: silence to allow on top of what the beats say.
    """

    __slots__ = ("_mean", "_pause", "_seen", "_square")

    def __init__(self, pause: int) -> None:
        self._pause = pause
        self._mean = 0.0
        self._square = 0.0
        self._seen = 0

    def learn(self, gap: float) -> None:
        """A gap between two beats."""
        self._seen += 1
        weight = 1 / min(self._seen, SAMPLES)
        self._mean += weight * (gap - self._mean)
        self._square += weight * (gap * gap - self._square)

    def limit(self, k: float, most: int) -> int:
        """Silence at `k` deviations; never more than `most`, and that until enough is known."""
        if self._seen < SAMPLES:
            return most
        deviation = math.sqrt(max(self._square - self._mean * self._mean, 0.0))
        return min(int(self._mean + self._pause + k * deviation), most)

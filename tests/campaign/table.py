# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/containment.md out of the lines of a campaign.  Pure."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tests.campaign.catalogue import CATALOGUE, UNCONTAINED, End
from tests.campaign.judge import bound

HEAD = """# Containment, measured

    script/campaign --n {n} --seed {seed}    # this page, again (about {minutes} minutes)

**{contained} of {n} faults contained{escaped}: with 95 % confidence at least {bound:.2%} are.**
The bound is one-sided, 1 - 0.05^(1/n) without an escape (Clopper and Pearson 1934 with some). It
holds for faults drawn like these, on this machine: three vnodes beside the root in QEMU, which
emulates all of it, stock Debian kernels.

An *escape* is harm outside the vnodes that were made to fail: another vnode restarts, halts, is
silent in a layer for more than its limit or miscounts a checksum; a canary in free memory or in the
root changes; the daemon or the machine goes down; the root's kernel complains.
Everything else that was not as foreseen is a *miss*: {missed} faults.
"""

CLASSES = """
## By class
| class | faults | kinds | escaped | bound | missed | seen, median ms (max) | running, median s |
|---|---|---|---|---|---|---|---|
"""

CHECKS = """
*Seen*: from the fault (of a hang: from the last beat) to the root's knowing. *Running*: to the
successor's first user beat; a stock kernel boots in most of that.

## By fault
| fault | n | reasons | escaped | missed |
|---|---|---|---|---|
"""

FIGURES = ("files", "views", "rss_mib", "processes", "locks", "free_mib")
SOAK = """
## What it leaves behind
Every 25 faults, when no dump is pending: what the daemon has open and maps, its memory, the root's
processes, the locks that are held, and what is free on its disk (the quota keeps 12 dumps).

| faults | files | views | MiB | processes | locks | MiB free |
|---|---|---|---|---|---|---|
"""

TAIL = """
## What is done
`tests/campaign/catalogue.py` has the {kinds} faults as data, with what the root must make of each;
names are LKDTM's where it has the fault. `adeos/faults/` is the module that does them; it refuses
to load without `i_know_this_crashes=1`. Time and load are random, from the seed;
`script/campaign --seed {seed} --only K` repeats fault K alone. Of each fault are checked: the
reason, the dump, its title and culprit, the successor; of every other vnode the beats of three
layers and work whose checksums are known; of the root its daemon, its kernel log and 40 MiB of
canaries.

## Not containable
Ring 0 without a hypervisor contains accidents. These are not among the faults above;
`--outside` tries each from the first of three vnodes:
"""

AGAIN = """
## Run again
After the mends that the misses led to, in a run of its own that the figures above do not count:
`script/campaign --n {n} --seed {seed} --again {faults}`

| fault | n | reasons | escaped | missed |
|---|---|---|---|---|
"""


def with_again(text: str, lines: Sequence[dict[str, Any]], seed: int) -> str:
    """The page with what came of faults that were run again, in the place of an earlier time."""
    shots = sorted((one for one in lines if "shot" in one), key=lambda one: one["shot"])
    names = sorted({one["fault"] for one in shots})
    words = " ".join(f"--fault {name}" for name in names)
    text = text.partition("\n## Run again\n")[0]
    text += AGAIN.format(n=len(shots), seed=seed, faults=words) + "".join(_faults(shots))
    return text + "".join(
        f"\n- {one['shot']} {one['fault']}: {_plain('; '.join(one[key]))}"
        for one in shots
        for key in ("escapes", "misses")
        if one[key]
    )


def page(lines: Sequence[dict[str, Any]], seed: int, wanted: int) -> str:
    """The page; `wanted` faults were planned, and a run that has fewer says so."""
    shots = sorted((one for one in lines if "shot" in one), key=lambda one: one["shot"])
    if not shots:
        raise ValueError("no shot is recorded")
    escapes = sum(bool(one["escapes"]) for one in shots)
    missed = sum(bool(one["misses"]) for one in shots)
    n = len(shots)
    times = [one["at"] for one in shots if "at" in one]
    minutes = max(1, round((max(times) - min(times)) / 60)) if times else 1
    text = HEAD.format(
        n=n, seed=seed, minutes=minutes, contained=n - escapes, bound=bound(n, escapes),
        escaped=f", {escapes} escaped" if escapes else "", missed=missed,
    )  # fmt: skip
    if n < wanted:
        text += f"\n{wanted} were planned; the run was ended after {n}.\n"
    text += CLASSES + "".join(_classes(shots)) + CHECKS + "".join(_faults(shots))
    text += _list("Escapes", shots, "escapes") + _list("Misses", shots, "misses")
    text += _checkpoints(lines)
    text += TAIL.format(kinds=len(CATALOGUE), seed=seed)
    tried = {one["outside"]: one for one in lines if "outside" in one}
    return text + "".join(
        f"- **{name}**: {what}. {_became(tried.get(name))}\n" for name, what in UNCONTAINED.items()
    )


def _became(tried: dict[str, Any] | None) -> str:
    """What a try of something that cannot be contained has done."""
    if tried is None:
        return "Not tried."
    if "machine" in tried:
        return f"Tried: the whole machine {tried['machine']}."
    states = ", ".join(f"vnode {vnode} {state}" for vnode, state in tried["states"].items())
    seen = ", ".join(f"{reason} of vnode {vnode}" for vnode, reason in tried["incidents"])
    harm = f"; the root: {_plain('; '.join(tried['root']))}" if tried["root"] else ""
    return f"Tried: noticed {seen or 'nothing'}; afterwards {states}{harm}."


def _classes(shots: Sequence[dict[str, Any]]) -> Iterable[str]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in shots:
        groups[one["group"]].append(one)
    for name, members in groups.items():
        n, escaped = len(members), sum(bool(one["escapes"]) for one in members)
        seen = list(_ms(members, "seen"))
        running = list(_ms(members, "running"))
        after = f"{statistics.median(seen):.1f} ({max(seen):.0f})" if seen else "-"
        back = f"{statistics.median(running) / 1000:.1f}" if running else "-"
        yield (
            f"| {name} | {n} | {len({one['fault'] for one in members})} | {escaped} |"
            f" {bound(n, escaped):.1%} | {sum(bool(one['misses']) for one in members)} |"
            f" {after} | {back} |\n"
        )


def _incidents(one: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for victim in one.get("victims", {}).values():
        yield from victim["incidents"]


def _ms(shots: Iterable[dict[str, Any]], stage: str) -> Iterable[float]:
    for one in shots:
        for incident in _incidents(one):
            if stage in incident["ms"]:
                yield incident["ms"][stage]


def _faults(shots: Sequence[dict[str, Any]]) -> Iterable[str]:
    for fault in CATALOGUE:
        members = [one for one in shots if one["fault"] == fault.name]
        if not members:
            continue
        reasons = Counter(i["reason"] for one in members for i in _incidents(one))
        words = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        if not words and fault.end in (End.STAYS, End.EITHER):
            words = "ran on"
        yield (
            f"| {fault.name} | {len(members)} | {words or '-'} |"
            f" {sum(bool(one['escapes']) for one in members)} |"
            f" {sum(bool(one['misses']) for one in members)} |\n"
        )


def _list(title: str, shots: Sequence[dict[str, Any]], key: str) -> str:
    found = [one for one in shots if one[key]]
    if not found:
        return f"\n## {title}\nNone.\n"
    rows = "".join(
        f"- {one['shot']} {one['fault']}: {_plain('; '.join(one[key]))}\n" for one in found
    )
    return f"\n## {title}\n{rows}"


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("<", "(").replace(">", ")")[:300]


def _checkpoints(lines: Sequence[dict[str, Any]]) -> str:
    points = [one for one in lines if "checkpoint" in one]
    if not points:
        return ""
    left = [f"after {one['checkpoint']}: {what}" for one in points for what in one["left"]]
    harm = [f"after {one['checkpoint']}: {what}" for one in points for what in one["root"]]
    gaps = [
        max(other["gap_ms"])
        for one in lines
        for other in one.get("others", {}).values()
        if other.get("gap_ms")
    ]
    longest = f"Longest silence of a bystander: {max(gaps):.0f} ms.\n" if gaps else ""
    rows = "".join(_checkpoint(one["checkpoint"], one["figures"]) for one in points)
    return (
        f"{SOAK}{rows}\n"
        f"{_plain('; '.join(left)) or 'Nothing was left over at any of the checks.'}\n"
        + longest
        + (f"The root: {_plain('; '.join(harm))}\n" if harm else "")
    )


def _checkpoint(after: int, figures: dict[str, Any]) -> str:
    words = [after + 1, *(figures.get(key, "-") for key in FIGURES)]
    return f"| {' | '.join(map(str, words))} |\n"

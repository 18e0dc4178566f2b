# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes out of a report what names a person, a machine or a network, or is a secret.

Equal values get equal stand-ins ("<ip-1>"), so a reader still sees what belongs
together.  Limits: patterns know forms, not meanings; a secret in a log line that
looks like any other word stays.  Kernel addresses stay: without them there is
nothing to debug, and the kernel they belong to is dead.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from crashdump.analysis.report import Report, map_text

_HEX = r"[0-9a-fA-F]"
PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    # words on a command line or in a log whose value is nobody's business
    ("secret", re.compile(
        r"(?i)(?<=[\s,;?&.\"'])((?:[\w.-]{0,40})(?:passw(?:or)?d|passphrase|secret|token|api_?key|"
        r"auth(?:tok)?|credential)[\w.-]{0,20}\s*[=:]\s*)(?P<value>\"[^\"]{1,200}\"|[^\s,;&\"']+)"
    )),
    ("email", re.compile(r"(?P<value>[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,6})")),
    ("uuid", re.compile(rf"(?P<value>\b{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}\b)")),
    ("mac", re.compile(rf"(?P<value>(?<![\w:]){_HEX}{{2}}(?::{_HEX}{{2}}){{5}}(?![\w:]))")),
    ("ip", re.compile(r"(?P<value>(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]))")),
    ("ip", re.compile(rf"(?P<value>(?<![\w:])(?:{_HEX}{{0,4}}:){{2,7}}{_HEX}{{0,4}}(?![\w:]))")),
    ("serial", re.compile(r"(?i)(serial(?: ?number)?\s*[:=]\s*)(?P<value>[\w-]{4,64})")),
    ("path", re.compile(r"(?P<value>/(?:home|root|Users)/[^\s/'\":,;]{1,64})")),
)  # fmt: skip


NO_HOSTS = frozenset({"", "(none)", "localhost"})


class Redactor:
    """Stand-ins for what was found so far."""

    def __init__(self, hosts: tuple[str, ...] = ()) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self.counts: dict[str, int] = {}
        names = [re.escape(name) for name in hosts if len(name) > 1]
        words = "|".join(names)
        self._host = re.compile(rf"(?<![\w-])(?P<value>{words})(?![\w-])") if words else None

    def text(self, text: str) -> str:
        """`text` without what the patterns find."""
        if self._host is not None:
            text = self._host.sub(lambda match: self._stand_in("host", match), text)
        for kind, pattern in PATTERNS:
            text = pattern.sub(lambda match, kind=kind: self._stand_in(kind, match), text)  # type: ignore[misc]
        return text

    def _stand_in(self, kind: str, match: re.Match[str]) -> str:
        value = match["value"]
        if kind == "ip" and not _is_address(value):
            return match[0]
        known = self._known.get((kind, value))
        if known is None:
            number = self.counts[kind] = self.counts.get(kind, 0) + 1
            known = self._known[kind, value] = f"<{kind}-{number}>"
        start, end = match.span("value")
        whole = match[0]
        return whole[: start - match.start()] + known + whole[end - match.start() :]


def _is_address(value: str) -> bool:
    """Not a version ("6.1.0.1" stays when it is no address), a time, or a PCI slot."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def redacted(report: Report) -> Report:
    """`report` redacted; `redacted` counts the values taken out, by kind.

    The dump's directory goes too: its name alone is kept.
    """
    redactor = Redactor((report.host,) if report.host not in NO_HOSTS else ())
    directory, _, name = report.source.rpartition("/")
    if directory:
        report = map_text(report, lambda text: text.replace(f"{directory}/", ""))
    clean = map_text(report, redactor.text)
    source = redactor.text(name)
    return msgspec.structs.replace(clean, source=source, redacted=dict(redactor.counts))

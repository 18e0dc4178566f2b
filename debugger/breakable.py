# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a kernel a breakpoint may be: code that can be stopped in without harm.

Not in what runs on the way to a stop itself (exception entry, NMI, the agent): a CPU that
hits a breakpoint there has no way left.  The kernel keeps such code in sections of its own
and, for single functions, on the list of what kprobes must not touch.
Source: Documentation/trace/kprobes.rst (blacklist), include/asm-generic/vmlinux.lds.h (6.1).
"""

import re
from collections.abc import Iterator, Sequence

from introspect import lists
from introspect.errors import IntrospectError
from introspect.kernel import Kernel
from introspect.symbols import ModuleTable

AGENT = "vnode_agent"
_SECTIONS = {
    "entry": "the kernel's entry code",
    "noinstr": "code that runs before the kernel is ready for an exception",
    "kprobes": "code that exceptions themselves run",
}
# What is called between an NMI or exception and the park, by the agent and on the way to it.  Not
# all of that is forbidden to kprobes, which see an INT3 before the exception notifiers do.
_AGENT_CALLS = re.compile(
    r"_*mem(cpy|set)(_erms|_orig)?|(native|x2)_?apic\w*|\w*safe_apic\w*|native_(read|write)_msr\w*"
    r"|touch_softlockup_watchdog|(__|arch_)?irq_work_(queue|queue_local|raise)|_raw_spin_(try|un)lock"
    r"|notifier_call_chain|hw_breakpoint_exceptions_notify|__rcu_read_(un)?lock|rcu_read_unlock_special"
    r"|__x86_\w+_thunk\w*|nmi_handle|default_do_nmi"
)
_MAX_LISTED = 8192


class Breakable:
    """The answer for one kernel; the bounds are read at the first question."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._forbidden: list[tuple[int, int, str]] | None = None

    def refusal(self, address: int) -> str:
        """Why no breakpoint may be at an address; "" when one may."""
        if not self._is_code(address):
            return "that is no code of the kernel"
        if self._forbidden is None:
            self._forbidden = list(self._ranges())
        for start, end, why in self._forbidden:
            if start <= address < end:
                return why
        try:
            name, _ = self._kernel.symbols.lookup(address)
        except IntrospectError:
            return ""
        if _AGENT_CALLS.fullmatch(name.partition(".")[0]):  # nmi_handle.part.0
            return f"{name}() is used by the agent to stop a CPU"
        return ""

    def _is_code(self, address: int) -> bool:
        bounds = (("_stext", "_etext"), ("_sinittext", "_einittext"))
        if any(start <= address < end for start, end in self._pairs(bounds)):
            return True
        return any(
            start <= address < end for module in self._modules() for start, end in module.ranges[:1]
        )

    def _pairs(self, names: tuple[tuple[str, str], ...]) -> Iterator[tuple[int, int]]:
        for first, last in names:
            try:
                address = self._kernel.symbols.address
                yield address(first), address(last)
            except IntrospectError:
                continue

    def _modules(self) -> Sequence[ModuleTable]:
        try:
            return self._kernel.symbols.modules
        except IntrospectError:
            return []

    def _ranges(self) -> Iterator[tuple[int, int, str]]:
        for name, why in _SECTIONS.items():
            for start, end in self._pairs(((f"__{name}_text_start", f"__{name}_text_end"),)):
                yield start, end, why
        for module in self._modules():
            if module.name == AGENT:
                yield from ((start, end, "the agent's own code") for start, end in module.ranges)
        yield from self._blacklist()

    def _blacklist(self) -> Iterator[tuple[int, int, str]]:
        """Entries read before a broken link count."""
        kernel = self._kernel
        try:
            head = kernel.symbols.address("kprobe_blacklist")
            entry = kernel.btf.struct("kprobe_blacklist_entry")
            offsets = [entry.offset(name) for name in ("list", "start_addr", "end_addr")]
            for node in lists.walk(kernel, head, _MAX_LISTED):
                at = node - offsets[0]
                yield (
                    kernel.u64(at + offsets[1]),
                    kernel.u64(at + offsets[2]),
                    "kprobes must not touch this code either: exceptions run it",
                )
        except IntrospectError:
            return

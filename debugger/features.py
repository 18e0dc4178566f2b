# SPDX-License-Identifier: GPL-2.0-or-later
"""The XML documents gdb reads: target description, threads, memory map.

Source: "Debugging with GDB", appendices G (target descriptions; standard
features of i386), E.9 (thread list) and E.10 (memory map).
"""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from debugger.registers import LAYOUT

# Intel SDM volume 3, 2.3 (EFLAGS), 2.5 (CR0, CR4) and 2.2.1 (EFER).
_FLAGS = {
    "i386_eflags": "CF:0 PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 NT:14 RF:16 VM:17 AC:18 VIF:19"
    " VIP:20 ID:21",
    "cr0_flags": "PE:0 MP:1 EM:2 TS:3 ET:4 NE:5 WP:16 AM:18 NW:29 CD:30 PG:31",
    "cr4_flags": "VME:0 PVI:1 TSD:2 DE:3 PSE:4 PAE:5 MCE:6 PGE:7 PCE:8 OSFXSR:9 OSXMMEXCPT:10"
    " UMIP:11 LA57:12 VMXE:13 SMXE:14 FSGSBASE:16 PCIDE:17 OSXSAVE:18 SMEP:20 SMAP:21 PKE:22"
    " CET:23 PKS:24",
    "efer_flags": "SCE:0 LME:8 LMA:10 NXE:11",
}


def _flags(name: str) -> str:
    fields = (field.split(":") for field in _FLAGS[name].split())
    size = 4 if name == "i386_eflags" else 8
    rows = "".join(f'<field name="{bit}" start="{at}" end="{at}"/>' for bit, at in fields)
    return f'<flags id="{name}" size="{size}">{rows}</flags>'


@cache
def target_xml() -> bytes:
    """The target description of an x86-64 kernel: registers in the order of LAYOUT."""
    parts = [
        (
            '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target>'
            "<architecture>i386:x86-64</architecture><osabi>none</osabi>"
        )
    ]
    number = 0
    for feature, registers in groupby(LAYOUT, key=lambda register: register.feature):
        parts.append(f'<feature name="{feature}">')
        rows = list(registers)
        parts += [_flags(row.type) for row in rows if row.type in _FLAGS]
        for register in rows:
            parts.append(
                f'<reg name="{register.name}" bitsize="{register.bits}"'
                f' type="{register.type}" regnum="{number}"/>'
            )
            number += 1
        parts.append("</feature>")
    parts.append("</target>")
    return "\n".join(parts).encode()


def threads_xml(threads: Iterable[tuple[str, int | None, str, str]]) -> bytes:
    """The thread list; a row is (id on the wire, CPU or None, name, further words)."""
    rows = []
    for ident, core, name, info in threads:
        where = "" if core is None else f' core="{core}"'
        rows.append(f'<thread id="{ident}"{where} name={quoteattr(name)}>{escape(info)}</thread>\n')
    return f'<?xml version="1.0"?><threads>\n{"".join(rows)}</threads>'.encode()


def memory_map_xml(regions: Sequence[tuple[int, int]]) -> bytes:
    """The memory map; a region is (first address, bytes).  gdb asks for nothing outside."""
    rows = "".join(
        f'<memory type="ram" start="{start:#x}" length="{size:#x}"/>\n' for start, size in regions
    )
    return (
        '<?xml version="1.0"?><!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map'
        ' V1.0//EN" "http://sourceware.org/gdb/gdb-memory-map.dtd">'
        f"<memory-map>\n{rows}</memory-map>"
    ).encode()

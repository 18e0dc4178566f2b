# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage-guided fuzzing of the debugger's protocol and symbol files with atheris.

    python tests/fuzz/fuzz_debugger.py TARGET [-max_total_time=600] [atheris options]

TARGET is one of those in TARGETS.  The seeds are built in code.  Anything but an error of ours
is a finding, and so is what a target asserts; so is a run of more than ten seconds.
"""

from __future__ import annotations

import sys
from array import array
from io import BytesIO
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(include=["debugger", "introspect"]):
    from debugger import dwarf, modulefile, monitor, packet, symfile
    from debugger.session import Session
    from introspect.btf import Btf, split_blob
    from introspect.kallsyms import SymbolTable

from elftools.elf.elffile import ELFFile

from debugger.errors import DebuggerError
from introspect.errors import IntrospectError
from introspect.symbols import ModuleTable, Symbol
from tests.debugger import test_dwarf, test_modulebtf, test_modulefile
from tests.debugger.conftest import PlainTarget
from tests.fuzz import harness

BASE, IDS = test_modulebtf.vmlinux()


def fuzz_packet(data: bytes) -> None:
    """Whatever way the stream is split, the events are the same, and little is held."""
    whole = packet.Parser(limit=4096).feed(data)
    split, events = packet.Parser(limit=4096), []
    step = 1 + data[0] % 7 if data else 1
    for at in range(0, len(data), step):
        events += split.feed(data[at : at + step])
        assert split.pending <= 4096 + step
    assert whole == events or len(data) > 4096
    for event in whole:
        packet.unescape(event.payload)
    assert packet.unescape(packet.escape(data)) == data


def fuzz_session(data: bytes) -> None:
    """A client that says anything: each line a packet, so that checksums are right."""
    session = Session(PlainTarget())
    for payload in data.split(b"\n")[:64]:
        answer = session.feed(packet.frame(payload.replace(b"#", b"").replace(b"$", b"")))
        assert b"internal error" not in answer and b"E01" not in answer.replace(b"$E01#a6", b"")
    session.feed(data)
    session.poll()


def fuzz_monitor(data: bytes) -> None:
    words = data.decode("utf-8", "replace").split()
    try:
        monitor.run(Session(PlainTarget()), words)
    except AttributeError as error:  # the plain target has no kernel to ask
        assert "kernel" in str(error), error


def fuzz_symfile(data: bytes) -> None:
    """Symbols that are anything: a file that pyelftools can read, or an error."""
    text, _, rest = data.partition(b"\xff")
    offsets = array(
        "Q", [int.from_bytes(rest[n : n + 4], "little") for n in range(1, len(rest), 4)]
    )
    names = (text.split(b"\0") + [b"x"] * len(offsets))[: len(offsets)]
    starts = array("I", accumulate((len(name) + 1 for name in names[:-1]), initial=1))
    table = SymbolTable(
        0xFFFFFFFF81000000, len(rest) and rest[0] % (len(offsets) + 1), offsets,
        (b"TtDdA" * len(offsets))[: len(offsets)], b"\0" + b"\0".join(names) + b"\0", starts,
    )  # fmt: skip
    check(symfile.pack(table, 0, rest[:20]))


def fuzz_module(data: bytes) -> None:
    text, at = data[:32].decode("latin-1"), int.from_bytes(data[32:40], "little")
    size = int.from_bytes(data[40:48], "little")
    symbols = [
        Symbol(text, int.from_bytes(data[n : n + 8], "little"), chr(data[n] & 127), "x", size)
        for n in range(48, len(data) - 8, 8)
    ]
    check(modulefile.pack(ModuleTable(text, [(at, at + (size & 0xFFFFFFFF) + 1)], symbols)))


def fuzz_dwarf(data: bytes) -> None:
    unit = dwarf.Unit(Btf(data), split_blob(data)[1])
    unit.section()


def fuzz_modulebtf(data: bytes) -> None:
    modulefile.types(Btf(data, BASE))


def check(made: bytes) -> None:
    file = ELFFile(BytesIO(made))
    for section in file.iter_sections():
        if section["sh_type"] != "SHT_NOBITS":  # which has no data, however large it is
            section.data()
    for symbol in file.get_section_by_name(".symtab").iter_symbols():
        assert symbol.name.isascii() and (symbol.name.isprintable() or not symbol.name)


def symbol_seed() -> bytes:
    return b"_text\0_etext\0_sinittext\0_einittext\0_end\xff\0" + b"".join(
        n.to_bytes(4, "little") for n in (0, 4096, 8192, 12288, 65536)
    )


OURS = (DebuggerError, IntrospectError)
TARGETS: dict[str, harness.Target] = {
    "dwarf": (fuzz_dwarf, lambda: [test_dwarf.sample().blob()]),
    "module": (
        fuzz_module,
        lambda: [b"name" + bytes(60) + test_modulefile.BASE.to_bytes(8, "big")],
    ),
    "modulebtf": (fuzz_modulebtf, lambda: [test_modulebtf.writer(BASE, IDS).blob()]),
    "monitor": (fuzz_monitor, lambda: [b"log 5"]),
    "packet": (fuzz_packet, lambda: [packet.frame(b"m0,4") + b"+-\x03" + packet.frame(b"X1,2:}}")]),
    "session": (fuzz_session, lambda: [b"qSupported:multiprocess+\nvCont;c:p2.1\nHg1\ng\nm0,4\n?"]),
    "symfile": (fuzz_symfile, lambda: [symbol_seed()]),
}


if __name__ == "__main__":
    harness.main(__doc__, TARGETS, OURS)

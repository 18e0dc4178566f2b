# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes ELF files that hold symbols and debug information, but no code or data.

Limits: 64 bits, little endian, x86-64, ET_EXEC, no program headers: enough for gdb.
"""

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from debugger.errors import SymbolFileError


class SectionType(IntEnum):
    """SHT_*"""

    PROGBITS = 1
    SYMTAB = 2
    STRTAB = 3
    NOTE = 7
    NOBITS = 8


ALLOC_WRITE, ALLOC_EXEC = 3, 6
ABSOLUTE = 0xFFF1  # SHN_ABS
GLOBAL = 1 << 4  # STB_GLOBAL in st_info
OBJECT, FUNC = 1, 2  # STT_*

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_EXEC, _X86_64 = 2, 62
# Bytes that could steer a terminal when gdb prints a name become '?'.
_SAFE = bytes(b if b == 0 or 0x21 <= b <= 0x7E else 0x3F for b in range(256))
_SAFE_TEXT = _SAFE[:32] + b" " + _SAFE[33:]


class Section(NamedTuple):
    """A section header and its content; NOBITS sections only have a size."""

    name: str
    kind: SectionType
    flags: int = 0
    address: int = 0
    data: bytes = b""
    size: int = 0
    link: int = 0
    info: int = 0
    align: int = 1
    entry: int = 0


def safe_names(strings: bytes, *, spaces: bool = False) -> bytes:
    """NUL-separated names without bytes that steer a terminal; the length stays."""
    return strings.translate(_SAFE_TEXT if spaces else _SAFE)


def assemble(sections: Sequence[Section]) -> bytes:
    """The file; .shstrtab is added, section numbers start at 1."""
    rows = [*sections, Section(".shstrtab", SectionType.STRTAB)]
    names = b"\0" + b"".join(row.name.encode() + b"\0" for row in rows)
    rows[-1] = rows[-1]._replace(data=names)
    parts: list[bytes] = []
    headers = [bytes(_SHDR.size)]
    at = _EHDR.size
    for row in rows:
        parts.append(bytes(-at % 8) + row.data)
        at += -at % 8
        headers.append(_header(row, names, at))
        at += len(row.data)
    padding = -at % 8
    header = _EHDR.pack(
        _IDENT, _EXEC, _X86_64, 1, 0, 0, at + padding, 0, _EHDR.size, 0, 0, _SHDR.size,
        len(headers), len(headers) - 1,
    )  # fmt: skip
    return b"".join([header, *parts, bytes(padding), *headers])


def _header(row: Section, names: bytes, at: int) -> bytes:
    name = names.index(b"\0" + row.name.encode() + b"\0") + 1
    size = row.size or len(row.data)
    return _SHDR.pack(
        name, row.kind, row.flags, row.address, at, size, row.link, row.info, row.align, row.entry
    )


def keep(path: Path, data: bytes | Callable[[], bytes], most: int) -> Path:
    """A file of a cache directory, written unless it is there; SymbolFileError.

    At most `most` files with its suffix are kept, those last used: a vnode's memory must not be
    able to fill the disk.
    """
    try:
        if path.stat().st_size:
            os.utime(path)
            return path
    except OSError:
        pass
    write(path, data if isinstance(data, bytes) else data())
    with contextlib.suppress(OSError):
        files = [(file.stat().st_mtime_ns, file) for file in path.parent.glob(f"*{path.suffix}")]
        for _, file in sorted(files, reverse=True)[most:]:
            file.unlink(missing_ok=True)
    return path


def write(path: Path, data: bytes) -> None:
    """Atomically, mode 0600: a reader sees a whole file or none.  SymbolFileError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SymbolFileError(f"cannot write {path}: {error.strerror or error}") from None

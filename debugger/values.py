# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitor commands that show typed memory: `struct` and `percpu`.

Limits: a per-CPU variable of a module has no name here; its address does for `struct`.
"""

import re
from collections.abc import Iterator

from adeos.text import printable
from debugger.command import Command, number
from debugger.errors import CommandError
from debugger.session import Session
from introspect import modules
from introspect.btf import Btf, Kind, Type
from introspect.errors import IntrospectError, NotFound
from introspect.kernel import Kernel
from introspect.object import Object, format_value

_HEX = re.compile(r"(?:0x)?([0-9a-fA-F]{1,16})")
_NAME = re.compile(r"\w+")
_KEYWORDS = ("struct ", "union ", "", "enum ")
_MAX_CPUS = 512
_PLAIN = frozenset((Kind.INT, Kind.PTR, Kind.ENUM, Kind.ENUM64))


def _struct(session: Session, argument: str) -> str:
    words, _, place = argument.partition(" ")
    name, _, path = words.partition(".")
    if not _NAME.fullmatch(name):
        raise CommandError("usage: struct TYPE[.MEMBER] [ADDRESS]: a number or a symbol")
    kernel = session.target.kernel
    kind = _type(kernel, name)
    if not place:
        return _safe("\n".join(_layout(kind.member(path).type if path else kind)))
    found = Object(kernel, kind, _address(kernel, place))
    found = found.member_(path) if path else found
    kernel.read(found.address_, 1)  # else each member says that it is not there
    return _value(found)


def _safe(text: str) -> str:
    return printable(text.replace("\t", "    ").encode(), keep="\n") + "\n"


def _value(found: Object) -> str:
    return _safe(f"({found.type_.spelling}) {found.address_:#x} = {format_value(found)}")


def _type(kernel: Kernel, name: str) -> Type:
    """A struct, union, typedef or enum of the kernel, else of one of its modules."""
    found = _find(kernel.btf, name)
    for module in kernel.modules() if found is None else ():
        try:
            found = _find(modules.read_btf(kernel, module), name)
        except IntrospectError:
            continue
        if found is not None:
            break
    if found is None:
        raise NotFound(f"no type {name} in this kernel's or its modules' BTF")
    return found


def _find(btf: Btf, name: str) -> Type | None:
    for keyword in _KEYWORDS:
        try:
            return btf.find(keyword + name)
        except NotFound:
            pass
    return None


def _address(kernel: Kernel, text: str) -> int:
    """A symbol's address, or a number: hexadecimal with 0x or from its ninth digit on."""
    plain = text.removeprefix("&")
    if text.startswith("0x") or (len(text) > 8 and plain not in kernel.symbols):
        match = _HEX.fullmatch(text)
        if match is None:
            raise NotFound(f"{text[:40]} is neither a number nor a symbol")
        return int(match[1], 16)
    small = number(text, 1 << 32)
    return kernel.symbols.address(plain) if small is None else small


def _layout(kind: Type) -> Iterator[str]:
    """A line a member: offset, bytes, declaration."""
    yield f"{kind.spelling}: {kind.size} bytes"
    for member in kind.strip().members:
        bits = f" : {member.bit_size}" if member.bit_size else ""
        declared = member.type.declare(member.name).rstrip()
        yield f"{member.bit_offset // 8:6} {member.type.size:6}  {declared}{bits}"
    for name, value in kind.strip().enumerators:
        yield f"{value:6}  {name}"


def _per_cpu(session: Session, argument: str) -> str:
    name, _, which = argument.partition(" ")
    wanted = number(which, _MAX_CPUS) if which else None
    if not name or (which and wanted is None):
        raise CommandError("usage: percpu NAME [CPU]")
    kernel = session.target.kernel
    start, end = (kernel.symbols.address(f"__per_cpu_{mark}") for mark in ("start", "end"))
    if not start <= kernel.symbols.address(name) < end:
        raise NotFound(f"{name} is not a per-CPU variable of this kernel")
    if wanted is not None:
        if wanted not in kernel.cpus("possible"):
            raise NotFound(f"no CPU {wanted}")
        return _value(_copy(kernel, name, wanted))
    found = [(cpu, _copy(kernel, name, cpu)) for cpu in kernel.cpus("possible")[:_MAX_CPUS]]
    return "".join(f"CPU {cpu:<3} {_short(copy)}" for cpu, copy in found)


def _copy(kernel: Kernel, name: str, cpu: int) -> Object:
    """A CPU's copy; as an unsigned long where its type is not known."""
    try:
        return kernel.per_cpu(name, cpu)
    except NotFound:
        return kernel.per_cpu(name, cpu, "unsigned long")


def _short(found: Object) -> str:
    """A value on one line; of structures and arrays the place alone."""
    if found.type_.strip().kind in _PLAIN:
        return _value(found)
    return _safe(f"({found.type_.spelling}) {found.address_:#x}")


COMMANDS = (
    Command(
        ("struct",), "TYPE[.MEMBER] [ADDRESS]",
        "a type's layout, or what lies at a number's or symbol's address", _struct,
    ),
    Command(
        ("percpu",), "NAME [CPU]",
        "a per-CPU variable of all CPUs; of one, with what is in it", _per_cpu,
    ),
)  # fmt: skip

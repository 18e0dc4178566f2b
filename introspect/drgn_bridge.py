# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn on the same memory, with types from BTF: its helpers run without debuginfo.

    >>> prog = drgn_bridge.program(Kernel.find(open_image("vmcore")))
    >>> from drgn.helpers.linux.pid import for_each_task
    >>> [task.comm.string_() for task in for_each_task(prog)]

drgn 0.3 takes types and variables from DWARF; here its finders are answered
from the kernel's own image: types, enumerators, functions and per-CPU
variables from BTF, addresses from kallsyms.  BTF has no types of ordinary variables: those of
introspect.object.GLOBALS and of ARRAYS below are known, others are not.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from introspect.btf import BOOL, Kind, Type
from introspect.errors import IntrospectError, NotFound, ToolMissing
from introspect.object import GLOBALS

if TYPE_CHECKING:
    from introspect.kernel import Kernel

FINDER = "introspect"
# Arrays that drgn's helpers ask for: (element type, length)
ARRAYS = {
    "__per_cpu_offset": ("unsigned long", 8192),
    "node_data": ("struct pglist_data *", 1024),
}


def _drgn() -> Any:
    try:
        import drgn
    except ImportError:
        raise ToolMissing("drgn is not installed: pip install drgn") from None
    return drgn


def program(kernel: Kernel) -> Any:
    """A drgn.Program on the kernel's memory, with symbols, types, variables and stacks.

    NotFound for a kernel without VMCOREINFO, which drgn cannot do without; ToolMissing without
    drgn.
    """
    drgn = _drgn()
    if not kernel.vmcoreinfo_raw:
        raise NotFound("drgn needs VMCOREINFO, and this kernel has none")
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    memory = kernel.memory

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return memory.read(address, count)
        except IntrospectError as error:
            raise drgn.FaultError(str(error), address) from None

    for start, size in memory.ranges:
        prog.add_memory_segment(start, size, read, physical=True)
    prog.set_linux_kernel_custom(kernel.vmcoreinfo_raw, kernel.live)
    add_finders(prog, kernel)
    _add_modules(prog, kernel)
    return prog


def core_dump(kernel: Kernel, path: Path) -> Any | None:
    """A drgn.Program on an ELF or kdump-compressed file, so that its threads have registers.

    None when drgn cannot open it, as a raw memory image: use program().  ToolMissing without drgn.
    """
    prog = _drgn().Program()
    try:
        prog.set_core_dump(path)
        if not prog.flags & _drgn().ProgramFlags.IS_LINUX_KERNEL:
            return None
    except (ValueError, OSError, LookupError):
        return None
    add_finders(prog, kernel)
    _add_modules(prog, kernel)
    return prog


def add_finders(prog: Any, kernel: Kernel) -> None:
    """Answers a program's questions for types, objects and symbols from `kernel`.

    They come after finders that are there already: debuginfo, where loaded, wins.
    """
    types = TypeFinder(prog, kernel)
    prog.register_type_finder(FINDER, types.find, enable_index=-1)
    prog.register_object_finder(FINDER, ObjectFinder(types).find, enable_index=-1)
    prog.register_symbol_finder(FINDER, SymbolFinder(kernel).find, enable_index=-1)


def _add_modules(prog: Any, kernel: Kernel) -> None:
    """Address ranges of vmlinux and its modules: with them drgn unwinds by ORC in memory.

    A module that drgn cannot read is left out, and so are those after a broken link.
    """
    drgn, address = _drgn(), kernel.symbols.table.address
    main = prog.main_module("kernel", create=True)
    main.address_ranges = [(address("_stext"), address("_end"))]
    with contextlib.suppress(IntrospectError):
        for module in kernel.modules():
            with contextlib.suppress(LookupError, drgn.FaultError):
                structure = drgn.Object(prog, "struct module *", module.address)
                known = prog.linux_kernel_loadable_module(structure, create=True)
                known.address_ranges = module.ranges


class TypeFinder:
    """BTF types as drgn types, made when asked for; members of structs later still."""

    def __init__(self, prog: Any, kernel: Kernel) -> None:
        self.drgn = _drgn()
        self.prog = prog
        self.kernel = kernel
        self._made: dict[int, Any] = {}
        kind = self.drgn.TypeKind
        self._keywords = (
            (kind.STRUCT, "struct "),
            (kind.UNION, "union "),
            (kind.ENUM, "enum "),
        )
        self._plain = (kind.TYPEDEF, kind.INT, kind.BOOL, kind.FLOAT)

    def find(self, prog: Any, kinds: Any, name: str, filename: str | None) -> Any:
        """drgn's type finder; files are not known to BTF."""
        if filename:
            return None
        for kind, prefix in self._keywords:
            if kind in kinds:
                found = self._named(prefix + name)
                if found is not None:
                    return found
        if any(kind in kinds for kind in self._plain):
            found = self._named(name)
            if found is not None and found.kind in kinds:
                return found
        return None

    def _named(self, spelling: str) -> Any:
        try:
            return self.convert(self.kernel.btf.find(spelling))
        except NotFound:
            return None

    def convert(self, kind: Type) -> Any:
        """A BTF type as a drgn type."""
        if kind.id not in self._made:
            self._made[kind.id] = _CONVERTERS[kind.kind](self, kind)
        return self._made[kind.id]

    def _void(self, kind: Type) -> Any:
        return self.prog.void_type()

    def _int(self, kind: Type) -> Any:
        if kind.encoding & BOOL:
            return self.prog.bool_type(kind.name, kind.size)
        return self.prog.int_type(kind.name, kind.size, kind.signed)

    def _float(self, kind: Type) -> Any:
        return self.prog.float_type(kind.name, kind.size)

    def _pointer(self, kind: Type) -> Any:
        return self.prog.pointer_type(self.convert(kind.target))

    def _array(self, kind: Type) -> Any:
        return self.prog.array_type(self.convert(kind.element), kind.length or None)

    def _compound(self, kind: Type) -> Any:
        make = self.prog.struct_type if kind.kind is Kind.STRUCT else self.prog.union_type
        members = [
            self.drgn.TypeMember(
                self._member(member.type, member.bit_size), member.name or None, member.bit_offset
            )
            for member in kind.members
        ]
        return make(kind.name or None, kind.size, members)

    def _member(self, kind: Type, bits: int) -> Any:
        """What drgn calls when it first needs the member's type."""
        if not bits:
            return lambda: self.convert(kind)
        return lambda: self.drgn.Object(self.prog, self.convert(kind), bit_field_size=bits)

    def _enum(self, kind: Type) -> Any:
        names = [self.drgn.TypeEnumerator(name, value) for name, value in kind.enumerators]
        if not names:
            return self.prog.enum_type(kind.name or None)
        base = self.prog.int_type(f"<{kind.size * 8} bit>", kind.size, kind.signed)
        return self.prog.enum_type(kind.name or None, base, names)

    def _forward(self, kind: Type) -> Any:
        if kind.spelling.startswith("union"):
            return self.prog.union_type(kind.name)
        return self.prog.struct_type(kind.name)

    def _typedef(self, kind: Type) -> Any:
        return self.prog.typedef_type(kind.name, self.convert(kind.target))

    def _qualified(self, kind: Type) -> Any:
        inner = self.convert(kind.target)
        flag = getattr(self.drgn.Qualifiers, kind.kind.name)
        return inner.qualified(inner.qualifiers | flag)

    def _through(self, kind: Type) -> Any:
        return self.convert(kind.target)

    def _function(self, kind: Type) -> Any:
        parameters = list(kind.parameters)
        variadic = bool(parameters) and parameters[-1][1].kind is Kind.VOID
        if variadic:
            parameters.pop()
        listed = [
            self.drgn.TypeParameter(self._member(each, 0), name or None)
            for name, each in parameters
        ]
        return self.prog.function_type(self.convert(kind.target), listed, variadic)


_CONVERTERS = {
    Kind.VOID: TypeFinder._void,
    Kind.INT: TypeFinder._int,
    Kind.FLOAT: TypeFinder._float,
    Kind.PTR: TypeFinder._pointer,
    Kind.ARRAY: TypeFinder._array,
    Kind.STRUCT: TypeFinder._compound,
    Kind.UNION: TypeFinder._compound,
    Kind.ENUM: TypeFinder._enum,
    Kind.ENUM64: TypeFinder._enum,
    Kind.FWD: TypeFinder._forward,
    Kind.TYPEDEF: TypeFinder._typedef,
    Kind.CONST: TypeFinder._qualified,
    Kind.VOLATILE: TypeFinder._qualified,
    Kind.RESTRICT: TypeFinder._qualified,
    Kind.TYPE_TAG: TypeFinder._through,
    Kind.FUNC: TypeFinder._through,
    Kind.VAR: TypeFinder._through,
    Kind.FUNC_PROTO: TypeFinder._function,
}


class ObjectFinder:
    """Enumerators, functions and variables."""

    def __init__(self, types: TypeFinder) -> None:
        self.types = types
        self.kernel = types.kernel
        self.flags = types.drgn.FindObjectFlags

    def find(self, prog: Any, name: str, flags: Any, filename: str | None) -> Any:
        """drgn's object finder."""
        if filename:
            return None
        for flag, look in (
            (self.flags.CONSTANT, self._constant),
            (self.flags.VARIABLE, self._variable),
            (self.flags.FUNCTION, self._function),
        ):
            if flag in flags:
                try:
                    return look(name)
                except NotFound:
                    continue
        return None

    def _object(self, kind: Any, **where: Any) -> Any:
        return self.types.drgn.Object(self.types.prog, kind, **where)

    def _constant(self, name: str) -> Any:
        kind, value = self.kernel.btf.enumerator(name)
        return self._object(self.types.convert(kind), value=value)

    def _variable(self, name: str) -> Any:
        known = self.kernel.btf.variable(name)
        if known is not None:
            kind = self.types.convert(known)
        elif name in ARRAYS:
            element, length = ARRAYS[name]
            kind = self.types.convert(self.kernel.btf.find(element))
            kind = self.types.prog.array_type(kind, length)
        elif name in GLOBALS:
            kind = self.types.convert(self.kernel.btf.find(GLOBALS[name]))
        else:
            raise NotFound(f"the type of {name} is not known")
        return self._object(kind, address=self.kernel.symbols.address(name))

    def _function(self, name: str) -> Any:
        kind = self.types.convert(self.kernel.btf.function(name))
        return self._object(kind, address=self.kernel.symbols.address(name))


class SymbolFinder:
    """kallsyms as drgn symbols."""

    def __init__(self, kernel: Kernel) -> None:
        self.symbols = kernel.symbols
        self.drgn = _drgn()

    def find(self, prog: Any, name: str | None, address: int | None, one: bool) -> list[Any]:
        """drgn's symbol finder."""
        try:
            if address is not None:
                found = [self.symbols.find(address)]
                if name is not None and found[0].name != name:
                    return []
            elif name is not None:
                found = [self.symbols.find(at) for at in self.symbols.addresses(name)]
                found = [symbol._replace(name=name) for symbol in found]
            else:
                found = list(self.symbols.entries())
        except NotFound:
            return []
        return [self._convert(symbol) for symbol in (found[:1] if one else found)]

    def _convert(self, symbol: Any) -> Any:
        binding = self.drgn.SymbolBinding
        kind = self.drgn.SymbolKind
        return self.drgn.Symbol(
            symbol.name,
            symbol.address,
            symbol.size,
            binding.GLOBAL if symbol.type.isupper() else binding.LOCAL,
            kind.FUNC if symbol.type in "tTwW" else kind.OBJECT,
        )

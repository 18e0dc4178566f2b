# SPDX-License-Identifier: GPL-2.0-or-later
"""Typed objects in a kernel's memory.

    >>> init = kernel.object("init_task")
    >>> init.comm
    (char [16])0xffffffffa241b0f8 = "swapper/0"
    >>> init.signal.thread_head.next
    (struct list_head *)0xffffffffa242d310 = 0xffff888001a3c9d0

A member is an attribute; a pointer is followed on the way, as C's -> does.
What would clash with a member's name ends in an underscore, as in drgn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from introspect.btf import BOOL, CHAR, Kind, Type
from introspect.errors import Corrupt, IntrospectError, NotFound
from introspect.lists import walk
from introspect.printk import printable

if TYPE_CHECKING:
    from introspect.kernel import Kernel

MAX_SHOWN = 256
MAX_ELEMENTS = 1 << 20
MAX_DEPTH = 4
MASK = (1 << 64) - 1

# Types of global variables: BTF has those of per-CPU ones only (unless pahole was told to write
# all, --btf_features=+global_var).
GLOBALS = {
    "boot_cpu_data": "struct cpuinfo_x86",
    "cgrp_dfl_root": "struct cgroup_root",
    "console_drivers": "struct console *",
    "init_css_set": "struct css_set",
    "init_mm": "struct mm_struct",
    "init_net": "struct net",
    "init_nsproxy": "struct nsproxy",
    "init_pid_ns": "struct pid_namespace",
    "init_task": "struct task_struct",
    "init_user_ns": "struct user_namespace",
    "init_uts_ns": "struct uts_namespace",
    "jiffies": "unsigned long",
    "jiffies_64": "u64",
    "mem_section": "struct mem_section **",
    "modules": "struct list_head",
    "net_namespace_list": "struct list_head",
    "nr_cpu_ids": "unsigned int",
    "page_offset_base": "unsigned long",
    "panic_cpu": "atomic_t",
    "phys_base": "unsigned long",
    "prb": "struct printk_ringbuffer *",
    "root_task_group": "struct task_group",
    "saved_command_line": "char *",
    "slab_caches": "struct list_head",
    "super_blocks": "struct list_head",
    "tainted_mask": "unsigned long",
    "task_groups": "struct list_head",
    "vmap_area_list": "struct list_head",
    "vmalloc_base": "unsigned long",
    "vmemmap_base": "unsigned long",
    "workqueues": "struct list_head",
    "__cpu_online_mask": "struct cpumask",
    "__cpu_possible_mask": "struct cpumask",
    "__cpu_present_mask": "struct cpumask",
}


class Object:
    """A value of type `type_` at virtual address `address_`.

    A `value` given makes it a value without a place (what & yields, a cast number).
    """

    __slots__ = ("_bits", "_kernel", "_value", "address_", "type_")

    def __init__(
        self,
        kernel: Kernel,
        kind: Type,
        address: int,
        *,
        value: int | None = None,
        bits: tuple[int, int] = (0, 0),
    ) -> None:
        self._kernel = kernel
        self._value = value
        self._bits = bits  # of a bitfield: (bits above `address`, width)
        self.type_ = kind
        self.address_ = address & MASK

    def __getattr__(self, name: str) -> Object:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        try:
            return self.member_(name)
        except NotFound as error:
            raise AttributeError(str(error)) from None

    def member_(self, path: str) -> Object:
        """Member "a.b[3]"; a pointer is followed first, those within the path are not."""
        holder = self.deref_() if self.type_.strip().kind is Kind.PTR else self
        place = holder.type_.member(path)
        address = holder.address_ + place.bit_offset // 8
        bits = (place.bit_offset % 8, place.bit_size) if place.bit_size else (0, 0)
        return Object(self._kernel, place.type, address, bits=bits)

    def __getitem__(self, index: int) -> Object:
        """Element of an array, bounded by its length; or of what a pointer points at."""
        plain = self.type_.strip()
        if plain.kind is Kind.ARRAY:
            # a length of 0 or 1 at the end of a struct means "more follow"
            if index < 0 or (plain.length > 1 and index >= plain.length):
                raise IndexError(f"{index} is outside {plain.spelling}")
            element = plain.element
            return Object(self._kernel, element, self.address_ + index * element.size)
        if plain.kind is Kind.PTR:
            target = plain.target
            return Object(self._kernel, target, self.value_() + index * target.size)
        raise NotFound(f"{self.type_.spelling} is neither array nor pointer")

    def __len__(self) -> int:
        plain = self.type_.strip()
        if plain.kind is not Kind.ARRAY:
            raise TypeError(f"{self.type_.spelling} has no length")
        return plain.length

    def __iter__(self) -> Iterator[Object]:
        for index in range(min(len(self), MAX_ELEMENTS)):
            yield self[index]

    def __bool__(self) -> bool:
        return bool(self.value_())

    def __int__(self) -> int:
        return self.value_()

    __index__ = __int__

    def __repr__(self) -> str:
        place = f"{self.address_:#x} = " if self._value is None else ""
        try:
            return f"({self.type_.spelling}){place}{format_value(self)}"
        except IntrospectError as error:
            return f"({self.type_.spelling}){place}<{error}>"

    def value_(self) -> int:
        """The number: of an integer, enum, bool, pointer or bitfield.  NotFound for the rest."""
        if self._value is not None:
            return self._value
        plain = self.type_.strip()
        if plain.kind not in (Kind.INT, Kind.ENUM, Kind.ENUM64, Kind.PTR):
            raise NotFound(f"{self.type_.spelling} is not a number")
        shift, width = self._bits
        if width:
            size = (shift + width + 7) // 8
            raw = int.from_bytes(self._kernel.read(self.address_, size), "little")
            raw = raw >> shift & (1 << width) - 1
        else:
            width = 8 * plain.size
            raw = int.from_bytes(self._kernel.read(self.address_, plain.size), "little")
        return raw - (1 << width) if plain.signed and raw >> (width - 1) else raw

    def raw_(self) -> bytes:
        """All its bytes."""
        return self._kernel.read(self.address_, self.type_.size)

    def string_(self, limit: int = MAX_SHOWN) -> str:
        """The text of a char array or char pointer, up to its NUL."""
        plain = self.type_.strip()
        if plain.kind is Kind.ARRAY:
            limit = min(limit, plain.size) if plain.length > 1 else limit
            return self._kernel.string(self.address_, limit)
        return self._kernel.string(self.value_(), limit)

    def deref_(self) -> Object:
        """What a pointer points at."""
        plain = self.type_.strip()
        if plain.kind is not Kind.PTR:
            raise NotFound(f"{self.type_.spelling} is not a pointer")
        return Object(self._kernel, plain.target, self.value_())

    def cast_(self, spelling: str) -> Object:
        """The same place as another type; a number as a pointer keeps its value."""
        kind = self._kernel.btf.find(spelling)
        if kind.kind is Kind.PTR and (self._value is not None or self._is_number()):
            return Object(self._kernel, kind, self.address_, value=self.value_())
        return Object(self._kernel, kind, self.address_)

    def _is_number(self) -> bool:
        return self.type_.strip().kind in (Kind.INT, Kind.PTR, Kind.ENUM, Kind.ENUM64)

    def container_of_(self, spelling: str, member: str) -> Object:
        """The `spelling` whose `member` this is, or that this pointer points at."""
        kind = self._kernel.btf.find(spelling)
        at = self.value_() if self.type_.strip().kind is Kind.PTR else self.address_
        return Object(self._kernel, kind, at - kind.offset(member))

    def list_(self, spelling: str, member: str, limit: int = MAX_ELEMENTS) -> Iterator[Object]:
        """The `spelling`s linked by `member`, this being the struct list_head."""
        kind = self._kernel.btf.find(spelling)
        offset = kind.offset(member)
        for node in walk(self._kernel, self.address_, limit):
            yield Object(self._kernel, kind, node - offset)


def global_object(kernel: Kernel, name: str, spelling: str | None = None) -> Object:
    """The global variable `name`; NotFound when neither BTF nor GLOBALS knows its type."""
    kind = kernel.btf.find(spelling) if spelling else kernel.btf.variable(name)
    if kind is None and name in GLOBALS:
        kind = kernel.btf.find(GLOBALS[name])
    if kind is None:
        raise NotFound(f"the type of {name} is not known: name it, object({name!r}, 'struct ...')")
    return Object(kernel, kind, kernel.symbols.address(name))


def format_value(obj: Object, depth: int = 0) -> str:
    """The value as text, structs a member a line, fit for a terminal."""
    plain = obj.type_.strip()
    if plain.kind in (Kind.STRUCT, Kind.UNION):
        return _format_struct(obj, plain, depth)
    if plain.kind is Kind.ARRAY:
        return _format_array(obj, plain, depth)
    if plain.kind is Kind.PTR:
        return _format_pointer(obj)
    if plain.kind in (Kind.ENUM, Kind.ENUM64):
        value = obj.value_()
        return next((name for name, number in plain.enumerators if number == value), str(value))
    if plain.kind is Kind.INT:
        value = obj.value_()
        return str(bool(value)).lower() if plain.encoding & BOOL else str(value)
    return f"<{plain.spelling}>"


def _format_pointer(obj: Object) -> str:
    value = obj.value_()
    target = obj.type_.strip().target.strip()
    text = f"{value:#x}"
    if value and _is_char(target):
        try:
            return f'{text} "{printable(obj.string_())}"'
        except IntrospectError:
            return text
    if value and target.kind is Kind.FUNC_PROTO:
        return f"{text} <{printable(obj._kernel.symbols.describe(value))}>"
    return text


def _is_char(kind: Type) -> bool:
    return (
        kind.kind is Kind.INT
        and kind.size == 1
        and (bool(kind.encoding & CHAR) or kind.name == "char")
    )


def _format_array(obj: Object, plain: Type, depth: int) -> str:
    if _is_char(plain.element.strip()) and plain.length:
        return f'"{printable(obj.string_())}"'
    if depth >= MAX_DEPTH:
        return "{...}"
    shown = [
        _format_member(Object(obj._kernel, plain.element, obj.address_ + i * plain.element.size),
                       depth + 1)
        for i in range(min(plain.length, 32))
    ]  # fmt: skip
    if plain.length > len(shown):
        shown.append(f"... {plain.length - len(shown)} more")
    return "{ " + ", ".join(shown) + " }"


def _format_struct(obj: Object, plain: Type, depth: int) -> str:
    if depth >= MAX_DEPTH:
        return "{...}"
    pad = "\t" * (depth + 1)
    lines = ["{"]
    for member in plain.members:
        bits = (member.bit_offset % 8, member.bit_size) if member.bit_size else (0, 0)
        inner = Object(obj._kernel, member.type, obj.address_ + member.bit_offset // 8, bits=bits)
        label = f".{member.name} = " if member.name else ""
        lines.append(f"{pad}{label}({member.type.spelling}){_format_member(inner, depth + 1)},")
    return "\n".join([*lines, "\t" * depth + "}"])


def _format_member(obj: Object, depth: int) -> str:
    try:
        return format_value(obj, depth)
    except (IntrospectError, Corrupt) as error:
        return f"<{error}>"

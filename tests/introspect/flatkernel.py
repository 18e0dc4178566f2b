# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel of a few pages whose virtual addresses are physical ones: two tasks, a module, ORC.

The product's own Kernel, with its types and symbols given; its memory may be anything.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

from introspect import modules
from introspect.btf import Btf
from introspect.kallsyms import SymbolTable
from introspect.kernel import Kernel, Layout
from introspect.memory import BufferMemory
from introspect.symbols import Symbols
from tests.introspect.btfwriter import BtfWriter

SIZE = 0x5000  # the stack ends here
USED = 0x940  # what follows is zero
INIT_TASK, SECOND, SIGNALS, MODULES, BTF_MODULES = 0x100, 0x200, 0x300, 0x320, 0x330
MODULE, KALLSYMS, SYMTAB, STRTAB, TYPETAB = 0x400, 0x500, 0x540, 0x5C0, 0x5E0
IPS, ORC, MODULE_IPS, MODULE_ORC = 0x600, 0x640, 0x680, 0x6C0
ENTRY = 0x740  # all the code that is in memory: a call of error_entry()
STACK, TEXT, TEXT_END, MODULE_TEXT = 0x800, 0x10000, 0x10800, 0x11000
SYMBOLS = (
    ("init_task", INIT_TASK), ("modules", MODULES), ("btf_modules", BTF_MODULES),
    ("__start_orc_unwind_ip", IPS), ("__stop_orc_unwind_ip", IPS + 12),
    ("__start_orc_unwind", ORC), ("__entry_text_start", ENTRY), ("__entry_text_end", ENTRY + 32),
    ("_stext", TEXT), ("first", TEXT), ("second", TEXT + 0x100), ("last", TEXT + 0x200),
    ("tail", TEXT + 0x300), ("error_entry", TEXT + 0x400), ("_etext", TEXT_END),
    ("_end", TEXT_END + 8),
)  # fmt: skip
# type, module.list, module.name and so on: offsets in bytes
TASK = {
    "__state": 0, "exit_state": 4, "on_cpu": 8, "cpu": 12, "pid": 16, "tgid": 20, "flags": 24,
    "real_parent": 32, "stack": 40, "signal": 48, "tasks": 56, "thread_node": 72, "comm": 88,
    "thread": 104,
}  # fmt: skip
WORDS = ("__state", "exit_state", "on_cpu", "cpu", "pid", "tgid", "flags")


Extra = Callable[[BtfWriter, int], dict[str, tuple[int, int]]]


def types(extra: Extra = lambda writer, u64: {}) -> Btf:
    """`extra` adds types and returns more members of task_struct: offset and type by name."""
    w = BtfWriter()
    u16, u32, u64 = (w.int(f"u{8 * size}", size) for size in (2, 4, 8))
    text = w.array(w.int("char", 1), 16)
    head = w.struct("list_head", 16, [("next", u64, 0), ("prev", u64, 64)])
    thread = w.struct("thread_struct", 8, [("sp", u64, 0)])
    kinds = {"tasks": head, "thread_node": head, "comm": text, "thread": thread}
    w.struct("task_struct", 144, [
        *((n, u32 if n in WORDS else kinds.get(n, u64), 8 * at) for n, at in TASK.items()),
        *((name, kind, 8 * at) for name, (at, kind) in extra(w, u64).items()),
    ])  # fmt: skip
    w.struct("signal_struct", 16, [("thread_head", head, 0)])
    w.struct("inactive_task_frame", 24, [("r13", u64, 0), ("bp", u64, 64), ("ret_addr", u64, 128)])
    layout = w.struct("module_layout", 12, [("base", u64, 0), ("size", u32, 64)])
    orc = w.struct("mod_arch_specific", 20, [
        ("num_orcs", u32, 0), ("orc_unwind_ip", u64, 32), ("orc_unwind", u64, 96),
    ])  # fmt: skip
    w.struct("module", 96, [
        ("state", u32, 0), ("list", head, 64), ("name", text, 192), ("core_layout", layout, 320),
        ("init_layout", layout, 416), ("kallsyms", u64, 512), ("arch", orc, 576),
    ])  # fmt: skip
    w.struct("mod_kallsyms", 32, [
        ("symtab", u64, 0), ("num_symtab", u32, 64), ("strtab", u64, 128), ("typetab", u64, 192),
    ])  # fmt: skip
    w.struct("btf_module", 32, [("list", head, 0), ("btf", u64, 128), ("module", u64, 192)])
    w.struct("btf", 16, [("data", u64, 0), ("data_size", u32, 64)])
    w.struct("orc_entry", 6, [
        ("sp_offset", u16, 0), ("bp_offset", u16, 16), ("sp_reg", u32, 32), ("bp_reg", u32, 36),
        ("type", u32, 40), ("signal", u32, 43),
    ], bits={"sp_reg": 4, "bp_reg": 4, "type": 3, "signal": 1})  # fmt: skip
    return Btf(w.blob())


def symbols(**renamed: str) -> SymbolTable:
    """`last` is the function that the second task is blocked in, `tail` is on no stack."""
    names, starts = b"\0", array("I")
    for name, _ in SYMBOLS:
        starts.append(len(names))
        names += renamed.get(name, name).encode() + b"\0"
    offsets = array("Q", [address for _, address in SYMBOLS])
    return SymbolTable(0, 0, offsets, b"T" * len(SYMBOLS), names, starts)


BTF, TABLE = types(), symbols()


def memory() -> bytearray:
    """Two tasks in one process, the second blocked in last(), called by second() and first()."""
    out = bytearray(USED)

    def put(at: int, *words: int) -> None:
        struct.pack_into(f"<{len(words)}Q", out, at, *words)

    def task(at: int, pid: int, comm: bytes, thread_next: int, thread_prev: int) -> None:
        struct.pack_into("<IIIIIII", out, at, 1, 0, int(not pid), 0, pid, 0, 0)
        put(at + TASK["real_parent"], INIT_TASK, STACK, SIGNALS)
        put(at + TASK["tasks"], at + TASK["tasks"], at + TASK["tasks"])
        put(at + TASK["thread_node"], thread_next, thread_prev)
        out[at + TASK["comm"] : at + TASK["comm"] + len(comm)] = comm
        put(at + TASK["thread"], STACK + 0x100)

    nodes = [at + TASK["thread_node"] for at in (INIT_TASK, SECOND)]
    task(INIT_TASK, 0, b"swapper/0", nodes[1], SIGNALS)
    task(SECOND, 7, b"second", SIGNALS, nodes[0])
    put(SIGNALS, *nodes)
    put(STACK + 0x100, 0, 0, TEXT + 0x210, TEXT + 0x110, TEXT + 0x10)
    put(MODULES, MODULE + 8, MODULE + 8)
    put(BTF_MODULES, BTF_MODULES, BTF_MODULES)
    put(MODULE + 8, MODULES, MODULES)
    out[MODULE + 24 : MODULE + 28] = b"loop"
    put(MODULE + 40, MODULE_TEXT, 0x100)
    put(MODULE + 64, KALLSYMS)
    struct.pack_into("<IQQ", out, MODULE + 72, 1, MODULE_IPS, MODULE_ORC)
    put(KALLSYMS, SYMTAB, 2, STRTAB, TYPETAB)
    struct.pack_into("<24xIBBHQQ", out, SYMTAB, 1, 2, 0, 1, MODULE_TEXT + 0x10, 0x20)
    distance = TEXT + 0x400 - (ENTRY + 9)
    struct.pack_into("<4sBi3s", out, ENTRY, b"\x90" * 4, 0xE8, distance, b"\x48\x89\xc4")
    out[STRTAB : STRTAB + 9] = b"\0lo_open\0"
    out[TYPETAB : TYPETAB + 2] = b"Tt"
    call = 5 | 1 << 4 | 2 << 8  # the caller's stack pointer is SP + sp_offset; a return address
    for index, (ip, rule) in enumerate(
        ((TEXT, 1 << 8), (TEXT + 0x100, call), (TEXT + 0x200, call))
    ):
        struct.pack_into("<i", out, IPS + 4 * index, ip - (IPS + 4 * index))
        struct.pack_into("<hhH", out, ORC + 6 * index, 8, 0, rule)
    struct.pack_into("<i", out, MODULE_IPS, MODULE_TEXT - MODULE_IPS)
    struct.pack_into("<hhH", out, MODULE_ORC, 8, 0, call)
    return out


def kernel(content: bytes | bytearray, btf: Btf = BTF, table: SymbolTable = TABLE) -> Kernel:
    """A Kernel whose memory is `content`, and zeros up to SIZE."""
    made = Kernel(
        BufferMemory([(0, bytes(content).ljust(SIZE, b"\0"))]), Layout(0, 0, 0, la57=False)
    )
    made.__dict__.update(btf=btf, page_offset=0)
    made.__dict__["symbols"] = Symbols(table, lambda: modules.tables(made))
    return made

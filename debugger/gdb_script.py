# SPDX-License-Identifier: GPL-2.0-or-later
"""The `vnode` commands of gdb: run by gdb's own Python, which imports nothing of ours.

They are thin: the server does the work (monitor.py), so that other clients have
the same words.  Here expressions become numbers, and words get completion and help.
"""

import gdb

_COMMANDS = (
    ("ps", "the tasks; R* is on its CPU"),
    ("log", "the end of the kernel log: vnode log [RECORDS]"),
    ("bt-all", "the stacks of all CPUs and tasks, equal ones once"),
    ("modules", "the loaded modules and what they taint"),
    ("locks", "mutexes and rwsems that are waited for, their owners, deadlocks"),
    ("crash", "why it died: title, culprit, registers, stack"),
    ("mem", "free and used memory, the largest slab caches"),
    ("stop", "take control and stop every CPU"),
    ("release", "end control: breakpoints go, the CPUs run"),
    ("info", "the kernel that is looked at, and its CPUs"),
)
_PLACED = (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION, gdb.TYPE_CODE_ARRAY, gdb.TYPE_CODE_FUNC)


def _plain(line: str) -> str:
    """A line of MI's target stream as text; any other as it is."""
    if not (line.startswith('@"') and line.endswith('"')):
        return line + "\n"
    raw = line[2:-1].encode("latin-1", "replace").decode("unicode_escape")
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")


def _monitor(words: str, argument: str = "") -> None:
    """Ask the server; its answer goes to stdout, where gdb alone would write to stderr."""
    text = gdb.execute(f"monitor {words} {argument}".rstrip(), to_string=True)
    if text.startswith('@"'):  # gdb 18 hands the target's words over as its MI clients get them
        text = "".join(map(_plain, text.splitlines()))
    if text.startswith("error: "):
        raise gdb.GdbError(text.removeprefix("error: ").rstrip())
    gdb.write(text)


def _number(expression: str) -> int:
    """The value of an expression; of what is no number, its address."""
    try:
        value = gdb.parse_and_eval(expression)
        if value.type.strip_typedefs().code in _PLACED and value.address is not None:
            value = value.address
        return int(value.cast(gdb.lookup_type("unsigned long")))
    except gdb.error as error:
        raise gdb.GdbError(str(error)) from None


class Vnode(gdb.Command):
    """Look at the whole kernel.  `vnode` alone lists what can be asked.

    What has no command here goes to the server as it is, as with `monitor`."""

    def __init__(self) -> None:
        super().__init__("vnode", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, prefix=True)

    def invoke(self, argument: str, from_tty: bool) -> None:
        self.dont_repeat()
        _monitor(argument or "help")


class Word(gdb.Command):
    """A command that is handed on as it is."""

    def __init__(self, word: str, text: str) -> None:
        self.__doc__ = text[0].upper() + text[1:] + "."
        self.word = word
        super().__init__(f"vnode {word}", gdb.COMMAND_DATA, gdb.COMPLETE_NONE)

    def invoke(self, argument: str, from_tty: bool) -> None:
        self.dont_repeat()
        _monitor(self.word, argument)


class Struct(gdb.Command):
    """Show a type's layout, or what is there.
    vnode struct TYPE[.MEMBER] [EXPRESSION]

    An expression that is no number stands for its address:
    vnode struct task_struct.comm init_task"""

    def __init__(self) -> None:
        super().__init__("vnode struct", gdb.COMMAND_DATA, gdb.COMPLETE_SYMBOL)

    def invoke(self, argument: str, from_tty: bool) -> None:
        self.dont_repeat()
        words = argument.split(None, 1)
        if words and words[0] in ("struct", "union", "enum"):
            words = words[1].split(None, 1) if len(words) > 1 else []
        if len(words) > 1:
            words[1] = f"{_number(words[1]):#x}"
        _monitor("struct", " ".join(words))


class PerCpu(gdb.Command):
    """Show a per-CPU variable: of all CPUs, or of one with all that is in it.
    vnode percpu NAME [CPU]"""

    def __init__(self) -> None:
        super().__init__("vnode percpu", gdb.COMMAND_DATA, gdb.COMPLETE_SYMBOL)

    def invoke(self, argument: str, from_tty: bool) -> None:
        self.dont_repeat()
        words = argument.split(None, 1)
        if len(words) > 1:
            words[1] = str(_number(words[1]))
        _monitor("percpu", " ".join(words))


Vnode()
for _word, _text in _COMMANDS:
    Word(_word, _text)
Struct()
PerCpu()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks of a kernel as threads of a debugger: those that are on no CPU.

A task that does not run left its registers on its stack when it was switched
out: thread.sp points at a struct inactive_task_frame.  Those that run are on a
CPU, whose thread has their registers.  The list is a snapshot, taken at most
once a stop event; what was read before a broken link is kept, and `note` tells.

Source: arch/x86/include/asm/switch_to.h, arch/x86/entry/entry_64.S (6.1).
"""

from collections.abc import Mapping

from debugger.registers import Values
from introspect.errors import IntrospectError
from introspect.kernel import Kernel
from introspect.tasks import Task

TID_BASE = 100_000
"""A task's thread id is this plus its pid: CPUs, which come first, stay below."""
LIMIT = 4096
"""Tasks listed at most."""
_TRIES = 3
_MAX_FRAME = 256
_KERNEL_CS, _KERNEL_SS = 0x10, 0x18
_NAMES = {"bp": "rbp", "bx": "rbx", "ret_addr": "rip"}


class TaskList:
    """The tasks of one kernel; refresh() lets go of the snapshot."""

    def __init__(self, kernel: Kernel, limit: int = LIMIT) -> None:
        self._kernel = kernel
        self._limit = limit
        self._tasks: list[Task] | None = None
        self._blocked: dict[int, Task] = {}
        self.note = ""
        """Why the list is not whole, "" when it is."""

    def refresh(self) -> None:
        self._tasks = None

    def all(self) -> list[Task]:
        """Every task, running or not."""
        if self._tasks is None:
            self._tasks = self._walk()
            self._blocked = {
                TID_BASE + task.pid: task for task in reversed(self._tasks) if not task.running
            }
        return self._tasks

    def _walk(self) -> list[Task]:
        best: list[Task] = []
        for _ in range(_TRIES if self._kernel.live else 1):
            found: list[Task] = []
            self.note = ""
            try:
                for task in self._kernel.tasks():
                    if len(found) == self._limit:
                        self.note = f"only the first {self._limit} tasks are listed"
                        return found
                    found.append(task)
                return found
            except IntrospectError as error:
                self.note = f"the task list is broken after {len(found)} tasks: {error}"
            best = max(best, found, key=len)
        return best

    def blocked(self) -> Mapping[int, Task]:
        """The tasks on no CPU by thread id, in the order of their pids."""
        self.all()
        return dict(sorted(self._blocked.items()))

    def find(self, tid: int) -> Task | None:
        self.all()
        return self._blocked.get(tid)

    def running(self) -> Mapping[int, Task]:
        """The tasks on CPUs, by CPU; idle tasks but the first CPU's are on no list."""
        return {task.cpu: task for task in self.all() if task.running}

    def registers(self, task: Task) -> Values:
        """What was saved when it was switched out; {} when that cannot be read."""
        kernel = self._kernel
        try:
            frame = kernel.btf.struct("inactive_task_frame")
            size = min(frame.size, _MAX_FRAME)
            raw = kernel.read(task.sp, size)
            values = {
                _NAMES.get(member.name, member.name): int.from_bytes(
                    raw[member.bit_offset // 8 :][:8], "little"
                )
                for member in frame.members
                if member.name in _NAMES or member.name.startswith("r1")
            }
        except IntrospectError:
            return {}
        values["rsp"] = task.sp + size
        values["cs"], values["ss"] = _KERNEL_CS, _KERNEL_SS
        return values

    def page_tables(self, task: Task) -> int:
        """Physical address of the process's page tables; 0 for kernel threads."""
        kernel = self._kernel
        try:
            mm = kernel.u64(task.address + kernel.btf.struct("task_struct").offset("mm"))
            if not mm:
                return 0
            return kernel.translate(kernel.u64(mm + kernel.btf.struct("mm_struct").offset("pgd")))
        except IntrospectError:
            return 0

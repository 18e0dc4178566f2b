# SPDX-License-Identifier: GPL-2.0-or-later
"""crash, drgn and gdb with debuginfo as judges of a vmcore: fetched, run, read.

    frames_of_crash(vmlinux, vmcore), frames_of_drgn(...), frames_of_gdb(...)
    frames_of_introspect(vmcore, cpu)

each give the kernel frames of the crashed CPU as (function, return address),
innermost first, from panic() outwards: crash leaves out what panic() called,
and a user-space frame is nobody's business here.  Inlined functions, which crash
does not know, are dropped: they share their caller's address.

    python -m tests.crashdump.oracle /var/lib/vnode-debug/incidents/0007/vmcore

compares them for the dump of an incident.

Downloads: 283 MB of debuginfo (kept unpacked, 800 MB) and crash with its libraries from
trixie, run by trixie's own loader: bookworm's crash 8.0.2 misreads bookworm's own kernel.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from introspect.elfcore import ElfMemory
from introspect.kernel import Kernel
from introspect.memory import open_image
from introspect.registers import from_pt_regs

CACHE = Path(os.environ.get("VNODE_DEBUG_CACHE", Path.home() / ".cache/vnode-debug")) / "oracle"
CRASH_PACKAGES = [
    *("crash", "libc6", "libgcc-s1", "liblzo2-2", "libncursesw6", "libsnappy1v5"),
    *("libstdc++6", "libtinfo6", "libzstd1", "zlib1g"),
]
Frame = tuple[str, int]
MODULES = 0xFFFFFFFFC0000000  # MODULES_VADDR; only crash names functions of modules without help
# Parts of a function the compiler split off, and a label inside entry_SYSCALL_64
_SUFFIX = re.compile(r"\.(cold|isra|part|constprop).*|_after_hwframe$")


def run(command: list[str | Path], timeout: int = 300, **more: object) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, text=True, timeout=timeout, errors="replace", **more
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def vmlinux(release: str) -> Path:
    """The vmlinux with debuginfo of a Debian kernel."""
    root = CACHE / f"dbg-{release}"
    path = root / f"usr/lib/debug/boot/vmlinux-{release}"
    if not path.exists():
        _unpack([f"linux-image-{release}-dbg"], root, {})
    return path


def crash_command() -> list[str | Path]:
    """crash 8.0.6 or later, by its own loader and libraries."""
    root = CACHE / "crash-trixie"
    if not (root / "usr/bin/crash").exists():
        environment = _trixie(CACHE / "apt-trixie")
        run(["apt-get", "update"], env=environment)
        _unpack(CRASH_PACKAGES, root, environment)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    return [loader, "--library-path", libraries, root / "usr/bin/crash"]


def _trixie(directory: Path) -> dict[str, str]:
    """An apt of its own that knows trixie; the system's is not touched."""
    (directory / "lists/partial").mkdir(parents=True, exist_ok=True)
    (directory / "archives/partial").mkdir(parents=True, exist_ok=True)
    (directory / "status").touch()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (directory / "sources.list").write_text(
        f"deb [signed-by={keyring}] http://deb.debian.org/debian trixie main\n"
    )
    (directory / "apt.conf").write_text(
        f'Dir::State "{directory}";\nDir::State::status "{directory}/status";\n'
        f'Dir::Cache "{directory}";\nDir::Etc::sourcelist "{directory}/sources.list";\n'
        'Dir::Etc::sourceparts "-";\nAPT::Architecture "amd64";\nAcquire::Languages "none";\n'
    )
    return {**os.environ, "APT_CONFIG": str(directory / "apt.conf")}


def _unpack(packages: list[str], root: Path, environment: dict[str, str]) -> None:
    """Downloads packages and unpacks them below `root`, whole or not at all."""
    part = root.with_name(root.name + ".part")
    (part / "debs").mkdir(parents=True, exist_ok=True)
    env = environment or dict(os.environ)
    run(["apt-get", "download", "-q", *packages], timeout=1200, cwd=part / "debs", env=env)
    for package in sorted((part / "debs").glob("*.deb")):
        run(["dpkg-deb", "-x", package, part])
        package.unlink()
    part.rename(root)


def from_panic(frames: list[Frame]) -> list[Frame]:
    """The frames from panic(), or from the fault, on; without those in user space."""
    names = [name for name, _ in frames]
    begin = names.index("panic") if "panic" in names else 0  # an oops's frame is what faulted
    kernel = [(name, at) for name, at in frames[begin:] if at >> 63]
    assert kernel, "no kernel frames"
    return [(_SUFFIX.sub("", name) if at < MODULES else "module", at) for name, at in kernel]


@cache
def crash(symbols: Path, vmcore: Path) -> dict[str, str]:
    """What crash says to `bt` and `log`; opening a dump takes it seconds."""
    outputs = {name: vmcore.with_name(f"crash.{name}") for name in ("bt", "log")}
    script = vmcore.with_name("crash.commands")
    commands = [f"{name} > {path}" for name, path in outputs.items()]
    script.write_text("\n".join([*commands, "quit", ""]))
    command = [*crash_command(), "-s", "-i", script, symbols, vmcore]
    run(command, 900, env={**os.environ, "TERM": "dumb"}, stdin=subprocess.DEVNULL)
    return {name: path.read_text(errors="replace") for name, path in outputs.items()}


def frames_of_crash(symbols: Path, vmcore: Path, *, oops: bool = False) -> list[Frame]:
    """Of an oops crash shows panic()'s frames first, then those of the exception."""
    text = crash(symbols, vmcore)["bt"]
    if oops:
        text = re.sub(r"\[exception RIP: ([^+\s]+).*\n *RIP: (\w+)", r"\n #0 [0] \1 at \2\n", text)
        text = text[text.index(" #0 [0] ") :]
    found = re.findall(r"^ *#\d+ \[[0-9a-f]+\] (\S+) at ([0-9a-f]+)", text, re.MULTILINE)
    return from_panic([(name, int(at, 16)) for name, at in found])


def frames_of_drgn(symbols: Path, vmcore: Path) -> list[Frame]:
    import drgn

    program = drgn.Program()
    program.set_core_dump(vmcore)
    try:
        program.load_debug_info([symbols])
    except drgn.MissingDebugInfoError:
        pass  # of the modules
    trace = program.crashed_thread().stack_trace()
    frames = [(frame.name or "?", frame.pc) for frame in trace if not frame.is_inline]
    return from_panic([(_symbol(program, at, name), at) for name, at in frames])


def _symbol(program: object, address: int, name: str) -> str:
    """The ELF symbol, as crash names it: DWARF has another name for assembler code."""
    try:
        return str(program.symbol(address - 1).name)  # type: ignore[attr-defined]
    except LookupError:
        return name


def frames_of_introspect(vmcore: Path, cpu: int) -> list[Frame]:
    """Those of the product, which has no debuginfo."""
    memory = open_image(vmcore)
    assert isinstance(memory, ElfMemory)
    kernel = Kernel.find(memory)
    trace = kernel.unwind(from_pt_regs(memory.registers[cpu]))
    assert trace.whole and not trace.guess
    places = [(frame.ip if frame.exact else frame.ip - 1, frame.ip) for frame in trace.frames]
    return from_panic([(kernel.symbols.find(inside).name, at) for inside, at in places])


def frames_of_gdb(symbols: Path, vmcore: Path, offset: int, cpu: int) -> list[Frame]:
    """`offset` is KERNELOFFSET; gdb has no idea of it."""
    python = (
        "import gdb\n"
        "frame = gdb.newest_frame()\n"
        "while frame is not None and frame.pc() >> 63:\n"
        "    if frame.type() != gdb.INLINE_FRAME:\n"
        "        name = gdb.execute('info symbol %d' % (frame.pc() - 1), to_string=True)\n"
        "        print('FRAME', name.split()[0], hex(frame.pc()))\n"
        "    frame = frame.older()\n"
    )
    script = vmcore.with_name("frames.py")
    script.write_text(python)
    text = run(
        [
            *("gdb", "-nx", "-batch", "-ex", f"symbol-file -o {offset:#x} {symbols}"),
            *("-ex", f"core-file {vmcore}", "-ex", f"thread {cpu + 1}", "-x", script),
        ]
    )
    found = re.findall(r"^FRAME (\S+) (0x[0-9a-f]+)$", text, re.MULTILINE)
    return from_panic([(name, int(at, 16)) for name, at in found])


def main(vmcore: Path) -> int:
    """Compares the judges on the dump of an incident; 0 when they agree."""
    with vmcore.open("rb") as file:
        info = file.read(1 << 20)
    found = re.search(rb"OSRELEASE=(\S+)", info)
    offset = re.search(rb"KERNELOFFSET=([0-9a-f]+)", info)
    assert found and offset, f"{vmcore}: no VMCOREINFO"
    evidence = json.loads(vmcore.with_name("crash.json").read_text())
    symbols = vmlinux(found[1].decode())
    cpu = evidence["crashed_cpu"] or 0
    judged = {
        "introspect": frames_of_introspect(vmcore, cpu),
        "crash": frames_of_crash(symbols, vmcore, oops=evidence["reason"] == "oops"),
        "drgn": frames_of_drgn(symbols, vmcore),
        "gdb": frames_of_gdb(symbols, vmcore, int(offset[1], 16), cpu),
    }
    for judge, frames in judged.items():
        print(judge, *(f"  {at:016x} {name}" for name, at in frames), sep="\n")
    # The registers are those at panic()'s entry; crash goes on to where panic() stood in the end.
    compared = {
        tuple((name, at if name != "panic" else 0) for name, at in frames)
        for frames in judged.values()
    }
    agreed = len(compared) == 1
    print("equal" if agreed else "DIFFERENT")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))

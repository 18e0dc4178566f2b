# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting, stopping and reaching the box: one a directory.

The directory ($VNODE_DEBUG_BOX, else build/box of the checkout) holds the keys, the state disk,
the logs and `box.json`, the record of a running box.  The record names processes by pid and start
time, so a record left by a killed run is known for what it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from box import cache, initramfs, kernels, layout, process, qemu, rootfs, ssh
from box.errors import BootFailed, BoxError, BoxTimeout, HostLacks, Refused

READY = b"box: ready"
FAILED = b"box: FAILED"
SPARE_MEMORY = 256 << 20  # QEMU itself and its translated code
SOCKET_PATH_MAX = 80  # sun_path holds 107 bytes; ssh adds a suffix of 17 while it connects
PACKAGES = (
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("mksquashfs", "squashfs-tools"),
    ("busybox", "busybox-static"),
    ("mkfs.ext4", "e2fsprogs"),
    ("depmod", "kmod"),
    ("ssh", "openssh-client"),
)


class State(Enum):
    """What a box directory holds."""

    DOWN = "down"  # no box
    BOOTING = "booting"  # QEMU runs, the root vnode is not ready
    RUNNING = "running"  # the root vnode takes commands
    DEAD = "dead"  # a record, but its QEMU has ended


@dataclass(frozen=True)
class Options:
    """How to start a box."""

    memory: int = 2 * layout.GIB  # bytes
    cpus: int = 4
    port: int = 0  # on 127.0.0.1; 0 takes a free one
    fresh: bool = False  # start with an empty state disk
    disk: int = 8 * layout.GIB  # bytes, sparse
    kernel: str = "cloud"  # flavour of the root's kernel
    vnode_kernels: tuple[str, ...] = ("cloud",)  # flavours in the box's /boot; the default first
    accel: str = "auto"  # tcg, kvm, or auto: kvm when proven
    append: str = ""  # more words for the root's kernel command line
    boot_timeout: float = 180.0  # seconds
    die_with_parent: bool = False  # QEMU ends when the calling thread's process does


@dataclass(frozen=True)
class Record:
    """The content of box.json."""

    pid: int
    start: int
    port: int
    memory: int
    cpus: int
    accel: str
    kernel: str
    started: float  # time.time()
    ready: bool = False

    @property
    def qemu(self) -> process.Identity:
        return process.Identity(self.pid, self.start)


@dataclass(frozen=True)
class Status:
    """A box as seen from outside."""

    state: State
    directory: Path
    record: Record | None

    @property
    def console_log(self) -> Path:
        return self.directory / "console.log"


def directory() -> Path:
    """Where the box of this checkout lives."""
    named = os.environ.get("VNODE_DEBUG_BOX")
    return Path(named).absolute() if named else cache.REPOSITORY / "build" / "box"


def status() -> Status:
    """What runs; reads files only."""
    record = _read_record()
    if record is None:
        return Status(State.DOWN, directory(), None)
    if not process.alive(record.qemu):
        return Status(State.DEAD, directory(), record)
    return Status(State.RUNNING if record.ready else State.BOOTING, directory(), record)


def running() -> bool:
    """Whether commands can be run in the box."""
    return status().state is State.RUNNING


def up(options: Options, progress: cache.Progress) -> Status:
    """Builds what is missing, boots the box and waits until it takes commands."""
    plan = layout.plan(options.memory, options.cpus)
    with _locked():
        _refuse_second(progress)
        _check_host(options)
        kernel = kernels.fetch(options.kernel, progress)
        vnode_kernels = [kernels.fetch(flavour, progress) for flavour in options.vnode_kernels]
        _build_modules([kernel, *vnode_kernels], progress)
        _place_kernels(vnode_kernels)
        initramfs.vnode_initrd(progress)
        images = (rootfs.debian(progress), rootfs.python_packages(progress))
        _compile_checkout()
        spec = _prepare(options, plan, kernel, vnode_kernels[0].version, images, progress)
        record = _launch(spec, options, kernel.version, progress)
        try:
            _wait_ready(record, options.boot_timeout, progress)
            _connect(record)
            record = replace(record, ready=True)
            _write_record(record)
        except BaseException:
            process.stop(record.qemu)
            _clean()
            raise
    return status()


def down(progress: cache.Progress) -> bool:
    """Ends the box in an orderly way, else by force; False when none ran."""
    with _locked():
        record = _read_record()
        if record is None:
            return False
        was_running = process.alive(record.qemu)
        if was_running:
            progress("box: going down")
            if record.ready:
                _ask_to_power_off(record)
            if not process.wait_gone(record.qemu, 10.0 if record.ready else 0.0):
                process.stop(record.qemu)
        _clean()
        return was_running


def exec_argv(command: Sequence[str], *, tty: bool) -> list[str]:
    """The ssh command that runs `command` as root in the box.

    It passes the exit status on, and with `tty` the terminal and Ctrl-C.  Refused when no box runs.
    """
    now = status()
    if now.state is not State.RUNNING or now.record is None:
        raise Refused(f"the box is {now.state.value} ({now.directory}): vnode-debug box up")
    return ssh.argv(_ssh_options(now.record), command, tty=tty)


def monitor(command: str) -> str:
    """Output of a command of QEMU's human monitor, such as `info registers -a`."""
    if _read_record() is None:
        raise Refused("no box runs: vnode-debug box up")
    argument = {"command-line": command}
    return str(qemu.monitor(_sockets() / "qmp", "human-monitor-command", **argument))


# --- the directory ---


@contextmanager
def _locked() -> Iterator[None]:
    """Holds the box directory for up and down."""
    home = directory()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(home / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another command is at this box ({home}): wait for it") from None
        yield


def _read_record() -> Record | None:
    path = directory() / "box.json"
    try:
        return Record(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BoxError(f"{path} is damaged ({error}): remove it") from error


def _write_record(record: Record) -> None:
    cache.write_atomically(directory() / "box.json", json.dumps(asdict(record)).encode())


def _sockets() -> Path:
    """A directory whose path is short enough for Unix sockets, private to the user."""
    home = directory()
    if len(os.fsencode(home)) <= SOCKET_PATH_MAX:
        return home
    short = Path(tempfile.gettempdir()) / f"vnode-debug-{os.getuid()}-{cache.digest(str(home))}"
    short.mkdir(mode=0o700, exist_ok=True)
    facts = short.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o77 or short.is_symlink():
        raise HostLacks(f"{short} belongs to somebody else: remove it")
    return short


def _clean() -> None:
    """Removes the traces of a box that has ended; logs, keys and the state disk stay."""
    for name in ("ssh", "qmp", "tree", "tree.pid"):
        (_sockets() / name).unlink(missing_ok=True)
    (directory() / "initrd").unlink(missing_ok=True)
    (directory() / "box.json").unlink(missing_ok=True)


def _refuse_second(progress: cache.Progress) -> None:
    record = _read_record()
    if record is None:
        return
    if process.alive(record.qemu):
        raise Refused(
            f"a box runs already (pid {record.pid}, port {record.port}): vnode-debug box down"
        )
    progress(f"box: cleaning up after pid {record.pid}, which ended without saying so")
    _clean()


def _check_host(options: Options) -> None:
    for name, package in PACKAGES:
        cache.program(name, package)
    rootfs.check_python()
    available = _available_memory(Path("/proc/meminfo").read_text())
    if available < options.memory + SPARE_MEMORY:
        raise HostLacks(
            f"the box wants {options.memory + SPARE_MEMORY >> 20} MiB of memory,"
            f" {available >> 20} MiB are free: end something, or give it less"
        )


def _available_memory(meminfo: str) -> int:
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise HostLacks("/proc/meminfo has no MemAvailable: this needs Linux 3.14 or newer")


# --- what the machine boots ---


def _build_modules(images: Sequence[kernels.KernelImage], progress: cache.Progress) -> None:
    """Calls script/modules; when it fails, modules of an earlier run have to do."""
    script = cache.REPOSITORY / "script" / "modules"
    if not script.exists():
        return
    for version in dict.fromkeys(image.version for image in images):
        try:
            cache.run(f"modules for {version}", [script, version], timeout=600)
        except BoxError as error:
            if not (cache.REPOSITORY / "build/modules" / version / "kmb.ko").exists():
                raise
            progress(f"{error}; going on with the modules that were built before")


def _place_kernels(images: Sequence[kernels.KernelImage]) -> None:
    """Shows the kernels in build/boot, which the box links into its /boot."""
    for image in images:
        for source in (image.vmlinuz, image.system_map, image.config):
            cache.place(source, cache.REPOSITORY / "build/boot" / source.name)


def _compile_checkout() -> None:
    """Byte code beside the sources: the box sees them read-only and compiles 12 times slower."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != rootfs.PYTHON:
        return
    folders = [path.parent for path in cache.REPOSITORY.glob("*/__init__.py")]
    launcher = list(cache.REPOSITORY.glob("vnode_debug.py"))
    argv = [sys.executable, "-m", "compileall", "-q", *map(str, [*folders, *launcher])]
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)


def _state_disk(path: Path, size: int, fresh: bool) -> None:
    """The writable disk; made in a second file so that a half-made one is never used."""
    if path.exists() and not fresh:
        return
    spare = path.with_suffix(".new")
    spare.unlink(missing_ok=True)
    with open(spare, "wb") as file:
        file.truncate(size)
    argv = [cache.program("mkfs.ext4", "e2fsprogs"), "-q", "-F", "-m", "0", "-L", "state"]
    argv += ["-E", "lazy_itable_init=1,lazy_journal_init=1", str(spare)]
    cache.run("state disk", argv, timeout=120)
    os.rename(spare, path)


def _prepare(
    options: Options,
    plan: layout.Layout,
    kernel: kernels.KernelImage,
    vnode_kernel: str,
    images: tuple[Path, ...],
    progress: cache.Progress,
) -> qemu.Spec:
    home, program = directory(), cache.program("qemu-system-x86_64", "qemu-system-x86")
    ssh.make_keys(home)
    _state_disk(home / "state.img", options.disk, options.fresh)
    own = initramfs.box_archive(
        plan,
        vnode_kernel,
        (home / "host_key").read_bytes(),
        (home / "client_key.pub").read_bytes(),
        {},
    )
    cached = initramfs.root_archive(kernel).read_bytes()
    cache.write_atomically(home / "initrd", cached + own)
    words = ["console=ttyS0,115200", "quiet", "panic=-1", "random.trust_cpu=on"]
    accel = options.accel
    if accel == "auto":
        accel = qemu.accelerator(program, kernel, progress)
    return qemu.Spec(
        qemu=program,
        accel="tcg,thread=multi" if accel == "tcg" else accel,
        cpus=options.cpus,
        memory=options.memory,
        kernel=kernel.vmlinuz,
        initrd=home / "initrd",
        append=" ".join([*words, *plan.kernel_arguments, options.append]).strip(),
        images=images,
        state=home / "state.img",
        port=_port(options.port),
        tree_socket=_sockets() / "tree",
        monitor_socket=_sockets() / "qmp",
        console_log=home / "console.log",
        vnodes_log=home / "vnodes.log",
    )


def _port(wanted: int) -> int:
    """A free port of 127.0.0.1: the wanted one, or any when that is 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except (OSError, OverflowError) as error:
            raise Refused(f"port {wanted} of 127.0.0.1: {error}: take another one") from None
        return int(probe.getsockname()[1])


# --- processes ---


def _launch(spec: qemu.Spec, options: Options, kernel: str, progress: cache.Progress) -> Record:
    home = directory()
    for log in (spec.console_log, spec.vnodes_log):
        log.write_bytes(b"")
    server = _serve_checkout(spec.tree_socket, home / "virtiofsd.log")
    progress(f"box: booting {kernel} on {spec.cpus} CPUs, {spec.memory >> 20} MiB ({spec.accel})")
    leash = ["setpriv", "--pdeathsig", "KILL"] if options.die_with_parent else []
    with open(home / "qemu.log", "wb") as log_file:
        child = subprocess.Popen(
            [*leash, *qemu.argv(spec)],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    identity = process.identify(child.pid)
    if identity is None:
        process.stop(server)
        raise BootFailed(f"QEMU ended at once: {_last_words(home / 'qemu.log')}")
    record = Record(
        pid=child.pid,
        start=identity.start,
        port=spec.port,
        memory=spec.memory,
        cpus=spec.cpus,
        accel=spec.accel.partition(",")[0],
        kernel=kernel,
        started=time.time(),
    )
    _write_record(record)
    return record


def _serve_checkout(path: Path, log: Path) -> process.Identity:
    """virtiofsd on the checkout; it ends by itself when QEMU does."""
    places = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
    program = next((place for place in places if os.access(place, os.X_OK)), None)
    if program is None:
        raise HostLacks("virtiofsd is missing: apt-get install qemu-system-common (or virtiofsd)")
    user = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
    path.unlink(missing_ok=True)
    argv = [*user, program, f"--socket-path={path}", "--thread-pool-size=1"]
    argv += ["-o", f"source={cache.REPOSITORY}", "-o", "cache=auto", "-o", "sandbox=chroot"]
    with open(log, "wb") as out:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    identity = process.identify(child.pid)
    end = time.monotonic() + 10.0
    while identity is not None and process.alive(identity) and time.monotonic() < end:
        if path.exists():
            return identity
        time.sleep(0.02)
    if identity is not None:
        process.stop(identity)
    raise BootFailed(f"virtiofsd did not start: {_last_words(log)}")


def _wait_ready(record: Record, timeout: float, progress: cache.Progress) -> None:
    """Follows the console until the root vnode says that it is ready."""
    console = directory() / "console.log"
    begin = time.monotonic()
    told = begin
    while True:
        seen = console.read_bytes()
        if READY in seen:
            progress(f"box: up after {time.monotonic() - begin:.1f} s")
            return
        if FAILED in seen:
            raise BootFailed(f"the root vnode gave up: {_last_words(console)}; see {console}")
        if process.wait_gone(record.qemu, 0.1):
            words = _last_words(directory() / "qemu.log") or _last_words(console)
            raise BootFailed(f"QEMU ended while the box booted: {words}; see {console}")
        now = time.monotonic()
        if now - begin > timeout:
            raise BoxTimeout(f"the box was not ready after {timeout:.0f} s; see {console}")
        if now - told > 10:
            told = now
            progress(f"box: booting, {now - begin:.0f} s")


def _last_words(log: Path) -> str:
    """The last lines of a log, safe for a terminal, on one line."""
    lines = [line for line in log.read_bytes()[-4000:].decode(errors="replace").splitlines()]
    text = " | ".join(line.strip() for line in lines[-3:] if line.strip())
    return "".join(c if c.isprintable() else "?" for c in text)[:400]


def _ssh_options(record: Record) -> list[str]:
    return ssh.options(directory(), _sockets() / "ssh", record.port)


def _connect(record: Record) -> None:
    """Opens the shared connection."""
    try:
        done = subprocess.run(
            ssh.open_shared(_ssh_options(record)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        raise BoxTimeout("sshd of the box did not answer within 60 s") from None
    if done.returncode != 0:
        raise BootFailed(f"ssh to the box ended with {done.returncode}; see its console.log")


def _ask_to_power_off(record: Record) -> None:
    options = _ssh_options(record)
    command = ["setsid", "-f", "box-poweroff"]
    for argv in (ssh.argv(options, command, tty=False), ssh.close_shared(options)):
        try:
            subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=10,
            )
        except subprocess.TimeoutExpired:
            return


def remove(progress: cache.Progress) -> None:
    """Takes the box directory away with its state disk; Refused while a box runs."""
    with _locked():
        _refuse_second(progress)
    shutil.rmtree(directory())

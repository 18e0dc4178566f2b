# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting, stopping and reaching the box; one a directory (box/home.py).

Everything here is called by the host's side: `vnode-debug box ...`, the verbs that run inside the
box, and the tests.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from box import (
    boot,
    cache,
    home,
    host,
    initramfs,
    kernels,
    layout,
    process,
    qemu,
    rootfs,
    ssh,
    supplies,
    userland,
)
from box.errors import BootFailed, BoxTimeout, Refused
from box.home import State, Status, directory, status

__all__ = [
    "Options",
    "State",
    "Status",
    "build",
    "directory",
    "down",
    "exec_argv",
    "monitor",
    "remove",
    "running",
    "status",
    "up",
]

ROOT_ARGUMENTS = ["console=ttyS0,115200", "quiet", "panic=-1", "random.trust_cpu=on"]


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
    debian: bool = False  # a Debian userland in vnode 1, with 768 MiB; wants 4G or more
    accel: str = "auto"  # tcg, kvm, or auto: kvm when proven
    hotplug: bool = False  # reserve nothing: `vnode-debug up` takes CPUs and memory
    append: str = ""  # more words for the root's kernel command line
    boot_timeout: float = 180.0  # seconds
    die_with_parent: bool = False  # QEMU ends when the calling thread's process does


@dataclass(frozen=True)
class Supplies:
    """What a box boots."""

    kernel: kernels.KernelImage  # the root's
    vnode_kernel: str  # release that the vnodes boot by default
    images: tuple[Path, ...]  # file systems of the root, the base first


def build(options: Options, progress: cache.Progress) -> Supplies:
    """Builds what a box of these options boots, as far as it is missing; boots nothing."""
    kernel = kernels.fetch(options.kernel, progress)
    vnode_kernels = [kernels.fetch(flavour, progress) for flavour in options.vnode_kernels]
    supplies.modules([kernel, *vnode_kernels], progress)
    supplies.show_kernels(vnode_kernels)
    initramfs.vnode_initrd(progress)
    if options.debian:
        userland.debian_initrd(vnode_kernels, progress)
    images = (rootfs.debian(progress), rootfs.python_packages(progress))
    supplies.byte_code()
    return Supplies(kernel, vnode_kernels[0].version, images)


def up(options: Options, progress: cache.Progress) -> Status:
    """Builds what is missing, boots the box and waits until it takes commands."""
    plan = layout.plan(options.memory, options.cpus, hotplug=options.hotplug)
    with home.locked():
        _refuse_second(progress)
        host.check(options.memory)
        port = host.free_port(options.port)
        built = build(options, progress)
        spec = _prepare(options, plan, built, port, progress)
        record = boot.launch(spec, built.kernel.version, progress, leashed=options.die_with_parent)
        try:
            boot.wait_ready(record, options.boot_timeout, progress)
            _connect(record)
            record = replace(record, ready=True)
            home.write_record(record)
        except BaseException:
            process.stop(record.qemu)
            home.clean()
            raise
    return status()


def down(progress: cache.Progress) -> bool:
    """Ends the box in an orderly way, else by force; False when none ran."""
    with home.locked():
        record = home.read_record()
        if record is None:
            return False
        was_running = process.alive(record.qemu)
        if was_running:
            progress("box: going down")
            if record.ready:
                _ask_to_power_off(record)
            if not process.wait_gone(record.qemu, 10.0 if record.ready else 0.0):
                process.stop(record.qemu)
        home.clean()
        return was_running


def running() -> bool:
    """Whether commands can be run in the box."""
    return status().state is State.RUNNING


def exec_argv(command: Sequence[str], *, tty: bool) -> list[str]:
    """The ssh command that runs `command` as root in the box.

    It passes the exit status on, and with `tty` the terminal and Ctrl-C.  Refused when no box runs.
    """
    now = status()
    if now.state is not State.RUNNING or now.record is None:
        raise Refused(f"the box is {now.state.value} ({now.directory}): vnode-debug box up")
    return ssh.argv(_ssh_options(now.record), command, tty=tty)


def run(
    command: Sequence[str], *, stdin: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `command` as root in the box, without a terminal; the caller looks at returncode."""
    return subprocess.run(
        exec_argv(command, tty=False),
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
    )


def monitor(command: str) -> str:
    """Output of a command of QEMU's human monitor, such as `info registers -a`."""
    if home.read_record() is None:
        raise Refused("no box runs: vnode-debug box up")
    argument = {"command-line": command}
    return str(qemu.monitor(home.sockets() / "qmp", "human-monitor-command", argument))


def _prepare(
    options: Options,
    plan: layout.Layout,
    built: Supplies,
    port: int,
    progress: cache.Progress,
) -> qemu.Spec:
    box, program = home.directory(), cache.program("qemu-system-x86_64", "qemu-system-x86")
    ssh.make_keys(box)
    supplies.state_disk(box / "state.img", options.disk, options.fresh)
    module = f"build/modules/{built.kernel.version}/kmb.ko"
    has_module = (cache.REPOSITORY / module).exists()
    config = layout.vnodes_toml(
        plan,
        f"/boot/vmlinuz-{built.vnode_kernel}",
        f"{layout.TREE}/{module}" if has_module else "",
        debian=options.debian,
    )
    own = initramfs.box_archive(
        plan, config, (box / "host_key").read_bytes(), (box / "client_key.pub").read_bytes()
    )
    cached = initramfs.root_archive(built.kernel).read_bytes()
    cache.write_atomically(box / "initrd", cached + own)
    accel = options.accel
    if accel == "auto":
        accel = qemu.accelerator(program, built.kernel, progress)
    return qemu.Spec(
        qemu=program,
        accel="tcg,thread=multi" if accel == "tcg" else accel,
        cpus=options.cpus,
        memory=options.memory,
        kernel=built.kernel.vmlinuz,
        initrd=box / "initrd",
        append=" ".join([*ROOT_ARGUMENTS, *plan.kernel_arguments, options.append]).strip(),
        images=built.images,
        state=box / "state.img",
        port=port,
        tree_socket=home.sockets() / "tree",
        monitor_socket=home.sockets() / "qmp",
        console_log=box / "console.log",
        vnodes_log=box / "vnodes.log",
    )


def _ssh_options(record: home.Record) -> list[str]:
    return ssh.options(home.directory(), home.sockets() / "ssh", record.port)


def _connect(record: home.Record) -> None:
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


def _ask_to_power_off(record: home.Record) -> None:
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
    with home.locked():
        _refuse_second(progress)
    shutil.rmtree(home.directory())


def _refuse_second(progress: cache.Progress) -> None:
    record = home.read_record()
    if record is None:
        return
    if process.alive(record.qemu):
        raise Refused(
            f"a box runs already (pid {record.pid}, port {record.port}): vnode-debug box down"
        )
    progress(f"box: cleaning up after pid {record.pid}, which ended without saying so")
    home.clean()

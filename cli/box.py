# SPDX-License-Identifier: GPL-2.0-or-later
"""box: starts, stops and enters the SMP machine in a QEMU process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.errors import CliError, NotFound
from cli.session import Session
from cli.verb import Place, SecondsParam, VerbGroup, dry_run_option, verb

if TYPE_CHECKING:
    from box.machine import Status

LOGS = ("console", "vnodes", "qemu")
FOLLOW_S = 0.2


@click.group("box", cls=VerbGroup)
def command() -> None:
    """Run the box: an SMP machine in a QEMU process."""


command.examples = (
    "vnode-debug box up                   build what is missing, boot it",
    "vnode-debug box exec -- uname -a     run a command in its root vnode",
    "vnode-debug box down",
)


def progress(session: Session) -> Callable[[str], None]:
    """Where the box tells how far it is."""
    return (lambda _text: None) if session.quiet else output.note


def as_dict(status: Status) -> dict[str, Any]:
    """A box's state for JSON."""
    record = status.record
    return {
        "state": status.state.value,
        "directory": str(status.directory),
        "console_log": str(status.console_log),
        **(
            {}
            if record is None
            else {
                "pid": record.pid,
                "port": record.port,
                "memory": record.memory,
                "cpus": record.cpus,
                "accel": record.accel,
                "kernel": record.kernel,
                "uptime_s": round(time.time() - record.started, 3),
            }
        ),
    }


def size(text: str) -> int:
    """Bytes of 2G or 2048M; a wrong one is BadOption."""
    from box.layout import parse_size

    return parse_size(text)


@verb(
    "up",
    place=Place.HERE,
    examples=[
        "vnode-debug box up",
        "vnode-debug box up --memory 6G --fresh     room above 4 GiB, an empty state disk",
        "vnode-debug box up --memory 4G --debian    vnode 1 can debug others: vnode-debug grant",
        "vnode-debug box up --hotplug               nothing reserved: 'up' takes CPUs and memory",
    ],
)
@click.option("--memory", default="2G", show_default=True, metavar="SIZE", help="Of the machine.")
@click.option(
    "--cpus",
    type=click.IntRange(2, 16),
    default=4,
    show_default=True,
    help="Of the machine; the root vnode takes one.",
)
@click.option("--fresh", is_flag=True, help="Forget the incidents and dumps of earlier runs.")
@click.option(
    "--kernel",
    default="cloud",
    show_default=True,
    metavar="FLAVOUR",
    help="Debian kernel of the root vnode.",
)
@click.option(
    "--vnode-kernel",
    "vnode_kernels",
    multiple=True,
    metavar="FLAVOUR",
    help="Debian kernels in the box's /boot; the first is the vnodes' default.  [cloud]",
)
@click.option(
    "--debian", is_flag=True, help="Vnode 1 gets 768M and a Debian to work in; wants --memory 4G."
)
@click.option(
    "--hotplug",
    is_flag=True,
    help="Reserve nothing at boot: 'up' takes CPUs and memory by hotplug.",
)
@click.option(
    "--accel",
    type=click.Choice(("auto", "tcg", "kvm")),
    default="auto",
    show_default=True,
    help="auto takes KVM only when a guest was seen to boot with it.",
)
@click.option("--append", default="", metavar="WORDS", help="For the root's kernel command line.")
@click.option(
    "--timeout",
    type=SecondsParam(1, 3600),
    default=180.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up booting after this long (exit code 7).",
)
@dry_run_option
def up(
    session: Session,
    memory: str,
    cpus: int,
    fresh: bool,
    kernel: str,
    vnode_kernels: tuple[str, ...],
    debian: bool,
    hotplug: bool,
    accel: str,
    append: str,
    timeout: float,
    dry_run: bool,
) -> None:
    """Boot the box; builds its images on the first run (some minutes)."""
    from box import layout, machine

    options = machine.Options(
        memory=size(memory),
        cpus=cpus,
        fresh=fresh,
        kernel=kernel,
        vnode_kernels=vnode_kernels or ("cloud",),
        debian=debian,
        hotplug=hotplug,
        accel=accel,
        append=append,
        boot_timeout=timeout,
    )
    if dry_run:
        plan = layout.plan(options.memory, options.cpus, hotplug=hotplug)
        output.write(
            f"boot a box of {output.size(options.memory)} and {cpus} CPUs in "
            f"{machine.directory()}{', its state disk emptied' if fresh else ''}"
        )
        output.write(f"root's command line: {' '.join(plan.kernel_arguments)} {append}".rstrip())
        output.write(f"kmb.ko: {plan.module_arguments or 'loaded by up'}")
        return
    status = machine.up(options, progress(session))
    if session.json:
        output.write_json(as_dict(status))


@verb(
    "down",
    place=Place.HERE,
    examples=[
        "vnode-debug box down",
        "vnode-debug box down --dry-run",
    ],
)
@dry_run_option
def down(session: Session, dry_run: bool) -> None:
    """Power the box off; incidents and dumps stay on its state disk."""
    from box import machine

    if dry_run:
        record = machine.status().record
        output.write(
            f"power off the box, QEMU process {record.pid}"
            if record
            else "nothing to do: no box runs"
        )
        return
    was_running = machine.down(progress(session))
    if session.json:
        output.write_json({"was_running": was_running})
    elif not was_running and not session.quiet:
        output.note("no box was running")


@verb("status", place=Place.HERE, examples=["vnode-debug box status --json"])
def status(session: Session) -> None:
    """Tell whether the box runs."""
    from box import machine

    facts = as_dict(machine.status())
    if session.json:
        output.write_json(facts)
        return
    width = max(map(len, facts))
    output.write(
        "\n".join(f"{key:{width}}  {output.clean(str(value))}" for key, value in facts.items())
    )


@verb("shell", place=Place.HERE, json=False, examples=["vnode-debug box shell"])
def shell(_session: Session) -> int:
    """Open a shell in the box's root vnode."""
    return _inside(["bash", "-l"], terminal=sys.stdin.isatty())


@verb(
    "exec",
    place=Place.HERE,
    json=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=[
        "vnode-debug box exec -- dmesg",
        "vnode-debug box exec -- cat /sys/module/kmb/version",
    ],
)
@click.argument("words", nargs=-1, required=True, metavar="CMD...", type=click.UNPROCESSED)
def execute(_session: Session, words: tuple[str, ...]) -> int:
    """Run a command in the box's root vnode, with its exit code."""
    return _inside(list(words), terminal=sys.stdin.isatty() and sys.stdout.isatty())


def _inside(words: list[str], *, terminal: bool) -> int:
    from box import machine

    sys.stdout.flush()
    code = subprocess.run(machine.exec_argv(words, tty=terminal), check=False).returncode
    return code if code >= 0 else 128 - code


@verb("console", place=Place.HERE, json=False, examples=["vnode-debug box console"])
def console(_session: Session) -> None:
    """Follow what the root vnode prints on its serial line, until Ctrl-C."""
    for text in follow(log_file("console")):
        output.write(text)


@verb(
    "log",
    place=Place.HERE,
    examples=[
        "vnode-debug box log            the root vnode's serial line",
        "vnode-debug box log vnodes     the vnodes' early messages",
        "vnode-debug box log qemu -f    QEMU's own messages, and those to come",
    ],
)
@click.argument("which", type=click.Choice(LOGS), default="console", metavar=f"[{'|'.join(LOGS)}]")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with what is added.")
def log(session: Session, which: str, following: bool) -> None:
    """Print a log of the box, also after its end."""
    path = log_file(which)
    if following and not session.json:
        for text in follow(path):
            output.write(text)
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if session.json:
        output.write_json(lines)
    else:
        output.write("\n".join(output.clean(line) for line in lines))


def log_file(which: str) -> Path:
    """One of LOGS; NotFound before the first box."""
    from box import machine

    path = machine.directory() / f"{which}.log"
    if not path.exists():
        raise NotFound(f"{path}: no such log yet; 'vnode-debug box up' writes it")
    return path


def follow(path: Path) -> Iterator[str]:
    """The text of a file, then what is added to it, for ever; starts anew when it is replaced."""
    with path.open("rb") as file:
        while True:
            data = file.read(65536)
            if data:
                yield output.clean(data.decode("utf-8", "replace"), keep="\n\t")
            elif os.fstat(file.fileno()).st_nlink == 0:
                raise CliError(f"{path} was replaced: the box was started anew")
            else:
                time.sleep(FOLLOW_S)


for _verb in (up, down, status, shell, execute, console, log):
    command.add_command(_verb)

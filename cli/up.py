# SPDX-License-Identifier: GPL-2.0-or-later
"""up: loads kmb.ko where needed and starts the daemon beside this terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import observe, output
from cli.control import UP, Order, Progress, wait_for
from cli.down import give_back
from cli.errors import CliError, TimedOut
from cli.session import Session, lends
from cli.verb import Place, dry_run_option, timeout_option, verb, wait_option

if TYPE_CHECKING:
    from watchdog.config import Config

FAILED_S = 10.0
"""How long to wait for what a daemon that failed leaves behind."""
RUNNING = Order("up", goal=UP, fresh=False, plan=lambda _status: "")


class DaemonFailed(CliError):
    """The daemon ended before it was ready; its own words and exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@verb(
    "up",
    place=Place.EITHER,
    examples=[
        "vnode-debug up --wait                 return when the vnodes are running",
        "vnode-debug up --config ./my.toml",
        "vnode-debug up --dry-run              check the config, change nothing",
    ],
)
@click.option("--config", type=click.Path(path_type=Path), help="Instead of the usual vnodes.toml.")
@wait_option
@timeout_option
@dry_run_option
def command(
    session: Session, config: Path | None, wait: bool, timeout: float, dry_run: bool
) -> None:
    """Load kmb.ko and start the daemon."""
    from watchdog import config as configs
    from watchdog import module, paths

    path = (config or paths.config_file()).absolute()
    found = configs.load(path)
    deadline = time.monotonic() + timeout
    pid = running_daemon(session)
    if dry_run:
        plan(found, path, pid)
        return
    if pid is None:
        loaded = session.machine_factory is None and module.load(found)
        try:
            pid = start(session, path, deadline, timeout)
        except BaseException:
            if loaded and lends():
                give_back(session, time.monotonic() + FAILED_S)
            raise
    elif not session.quiet:
        output.note(f"the daemon runs already, process {pid}")
    started = [vnode for vnode in found.vnode if vnode.autostart]
    states = wait_all(session, [v.id for v in started], deadline, timeout) if wait else []
    if lends() and "no_ipi_broadcast=1" not in Path("/proc/cmdline").read_text().split():
        output.note(
            "the root may stop the vnodes' CPUs with its own: boot it with no_ipi_broadcast=1"
        )
    if session.json:
        output.write_json({"pid": pid, "vnodes": states})
    elif not session.quiet:
        for one in states:
            output.write(f"vnode {one['vnode']} ({output.clean(one['name'])}): {one['state']}")


def plan(config: Config, path: Path, pid: int | None) -> None:
    """What up would do."""
    from watchdog import loan, module

    output.write(f"{path}: {len(config.vnode)} vnode(s), no mistakes")
    if module.DEVICE.exists():
        output.write("kmb.ko is loaded")
    else:
        numbers, sizes = loan.wanted(config)
        if sizes:
            text = f"take CPUs {','.join(map(str, numbers))} and {output.size(sum(sizes))}"
            output.write(f"{text} from the running root, where they are not reserved")
        words = " ".join(module.parameters(config.machine))
        output.write(output.clean(f"kmb.ko is to be loaded{f': {words}' if words else ''}"))
    output.write("start the daemon" if pid is None else f"the daemon runs already, process {pid}")
    for vnode in config.vnode:
        word = "start" if vnode.autostart else "leave for 'vnode-debug start'"
        cpus = ",".join(map(str, vnode.cpus))
        words = f"{word} vnode {vnode.id} ({vnode.name}): CPU {cpus}, {vnode.memory}"
        output.write(output.clean(f"{words}, {vnode.kernel}"))


def running_daemon(session: Session) -> int | None:
    """The process id of a daemon that answers, else None."""
    from watchdog.errors import NoDaemonError

    try:
        return int(session.client().call("ping")["pid"])
    except NoDaemonError:
        return None


def start(session: Session, config: Path, deadline: float, timeout: float) -> int:
    """Start the daemon in a session of its own; its pid once it says that it is ready."""
    import vnode_debug
    from watchdog import paths

    log = paths.private_dir(paths.run_dir()) / "daemon.log"
    ready, theirs = os.pipe()
    launcher = str(Path(vnode_debug.__file__).resolve())
    words = [sys.executable, launcher, "daemon", "--config", str(config), "--ready-fd", str(theirs)]
    with os.fdopen(ready, "rb", buffering=0) as pipe:
        try:
            with open(log, "ab", opener=lambda p, flags: os.open(p, flags, 0o600)) as out:
                begin = out.tell()
                daemon = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    pass_fds=(theirs,),
                    start_new_session=True,
                    cwd="/",
                )
        finally:
            os.close(theirs)
        with Progress(session) as progress:
            wait_until_ready(daemon, pipe, deadline, timeout, log, begin, progress)
    return daemon.pid


def wait_until_ready(
    daemon: subprocess.Popen[bytes],
    pipe: Any,
    deadline: float,
    timeout: float,
    log: Path,
    begin: int,
    progress: Progress,
) -> None:
    """Return when the daemon wrote to the pipe; DaemonFailed or TimedOut otherwise."""
    import select

    while not select.select([pipe], [], [], 0.1)[0]:
        if time.monotonic() > deadline:
            daemon.terminate()
            raise TimedOut(f"the daemon was not ready after {timeout:g} s and was ended; see {log}")
        progress.show("the daemon is starting")
    if pipe.read(16):
        return
    code = daemon.wait()
    raise DaemonFailed(last_words(log, begin), code if code > 0 else 1)


def last_words(log: Path, begin: int) -> str:
    """What a daemon that failed said: its error lines, else its last line."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read(65536).decode("utf-8", "replace").splitlines()
    errors = [
        line.removeprefix("vnode-debug: ") for line in lines if line.startswith("vnode-debug: ")
    ]
    return "\n".join(errors) or f"the daemon ended at once: {lines[-1] if lines else f'see {log}'}"


def wait_all(
    session: Session, vnodes: list[int], deadline: float, timeout: float
) -> list[dict[str, Any]]:
    """Wait until these vnodes run."""
    states = []
    for vnode in vnodes:
        before = observe.find(session.machine(), str(vnode))
        reached = wait_for(session, before, RUNNING, deadline, timeout)
        state = reached.state.name.lower()
        states.append({"vnode": vnode, "name": reached.name, "state": state})
    return states

# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn: drgn on a vnode's memory, a dump or a memory image, with or without debuginfo.

Types come from the kernel's own BTF, symbols from its kallsyms, stacks from its ORC tables;
debuginfo, where the machine has it, comes first.  Limits: no types of ordinary variables without
debuginfo but those of introspect.object.GLOBALS.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import attach, output
from cli.errors import CliError, NotFound
from cli.session import Session
from cli.verb import INCIDENT, verb

if TYPE_CHECKING:
    from introspect.kernel import Kernel

SCRIPT_MAX = 1 << 24

DEBUGINFO = "/usr/lib/debug/boot/vmlinux-{}"


@verb(
    "drgn",
    place=attach.place,
    json=False,
    context_settings={"allow_interspersed_args": False},
    examples=[
        "vnode-debug drgn 2                              a prompt; prog is the kernel of vnode 2",
        "vnode-debug drgn -e 'print_dmesg()' 2",
        "vnode-debug drgn --incident 3",
        "vnode-debug drgn ./vmcore script.py ARGS",
    ],
    epilog="A script or -e code has prog and drgn's helpers for Linux at hand.",
)
@click.argument("target", required=False, metavar="VNODE|FILE", type=click.UNPROCESSED)
@click.argument("script", nargs=-1, metavar="[SCRIPT [ARGS]...]", type=click.UNPROCESSED)
@click.option("-e", "--exec", "code", metavar="CODE", help="Run this instead of a prompt.")
@click.option("--incident", type=INCIDENT, help="The dump of an incident instead.")
def command(
    session: Session,
    target: str | None,
    script: tuple[str, ...],
    code: str | None,
    incident: int | None,
) -> None:
    """Open drgn on a kernel, also without debuginfo."""
    if incident is not None and target is not None:
        script, target = (target, *script), None
    if code is not None and script:
        raise click.UsageError("give a script or -e CODE, not both")
    source = read_script(script[0]) if script else code
    prog = program(session, target, incident)
    if source is None:
        interact(session, prog)
        return
    sys.argv = list(script) or ["-e"]
    run(source, script[0] if script else "<-e>", prog)


def read_script(name: str) -> str:
    """The text of a script; NotFound."""
    from adeos.files import read_regular

    try:
        return read_regular(Path(name), SCRIPT_MAX).decode()
    except OSError as error:
        raise NotFound(f"{name}: {error.strerror}") from None
    except ValueError:
        raise CliError(f"{name}: is no Python text") from None


def program(session: Session, target: str | None, incident: int | None) -> Any:
    """The drgn.Program on what the words name."""
    from introspect import drgn_bridge

    kernel = attach.factory(session, target, incident, tasks=False)().kernel
    dump = Path(target) if target is not None and attach.is_file(target) else None
    if incident is not None:
        from cli.store import dump_path

        dump = dump_path(session, incident)
    prog = drgn_bridge.core_dump(kernel, dump) if dump is not None else None
    prog = prog if prog is not None else drgn_bridge.program(kernel)
    load_debuginfo(session, prog, kernel)
    return prog


def load_debuginfo(session: Session, prog: Any, kernel: Kernel) -> None:
    """The vmlinux of Debian's -dbg package, when it is there; modules do without."""
    path = Path(DEBUGINFO.format(kernel.release))
    if not path.is_file():
        return
    try:
        prog.load_debug_info([path])
    except Exception as error:  # drgn.MissingDebugInfoError and friends: all mean "go on without"
        if not session.quiet:
            output.note(f"{path}: {output.one_line(str(error))}")


def run(source: str, name: str, prog: Any) -> None:
    """Execute Python with the names of drgn's prompt; its failure is one line."""
    from drgn import set_default_prog
    from drgn.cli import default_globals

    set_default_prog(prog)  # helpers called without a program take this one
    try:
        exec(compile(source, name, "exec"), default_globals(prog))
    except (SystemExit, KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:  # the user's code may raise anything
        raise CliError(f"{name}: {type(error).__name__}: {error}") from None
    finally:
        set_default_prog(None)


def interact(session: Session, prog: Any) -> None:
    """drgn's prompt; code from stdin when that is no terminal."""
    if not sys.stdin.isatty():
        run(sys.stdin.read(), "<stdin>", prog)
        return
    from drgn.cli import run_interactive

    run_interactive(prog, quiet=session.quiet)

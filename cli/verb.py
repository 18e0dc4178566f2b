# SPDX-License-Identifier: GPL-2.0-or-later
"""What a verb is: a click command with examples, --json and a place to run at.

A module of this folder defines one verb:

    @verb("status", examples=["vnode-debug status"])
    @click.option("--watch", is_flag=True, help="...")
    def command(session: Session, watch: bool) -> None:
        \"\"\"One line that is also in cli.main.GROUPS.\"\"\"

Verb.invoke decides where the work is done (Place): most verbs run where
/dev/kmb is, which may be the box or another machine (cli.remote).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import click

from cli.session import Session

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}")


class Place(Enum):
    """Where a verb does its work."""

    MACHINE = "where /dev/kmb is: here, in the box, or at --host"
    EITHER = "as MACHINE, but here when there is no machine to go to"
    HERE = "always here"


Where = Place | Callable[[Mapping[str, Any]], Place]


class ExamplesFirst(click.Command):
    """Help that opens with the examples; the rest is click's."""

    examples: Sequence[str] = ()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)


class Verb(ExamplesFirst):
    """A command that knows its examples and where it is to run."""

    def __init__(self, *args: Any, examples: Sequence[str], place: Where, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.place = place

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["cli.arguments"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        session = ctx.ensure_object(Session)
        place = self.place if isinstance(self.place, Place) else self.place(ctx.params)
        if place is not Place.HERE:
            target = session.elsewhere(required=place is Place.MACHINE)
            if target is not None:
                path = ctx.command_path.split()[1:]
                return target.run([*session.flags(), *path, *ctx.meta["cli.arguments"]])
        elif session.host is not None:
            raise click.UsageError(f"{ctx.info_name} works on this machine, not at --host", ctx)
        return super().invoke(ctx)


GROUP_SETTINGS = {"invoke_without_command": True, "subcommand_metavar": "[VERB] [ARGS]..."}


class VerbGroup(ExamplesFirst, click.Group):
    """Verbs under one name, such as box; the bare name shows its help."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{**GROUP_SETTINGS, **settings})

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())
        return result

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, names = args[0], self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(name, names)
            raise click.UsageError(f"there is no verb {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """', did you mean status?' when one of names is spelled much like name, else ''."""
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).json = True


def verb(
    name: str,
    *,
    examples: Sequence[str],
    place: Where = Place.MACHINE,
    json: bool = True,
    **settings: Any,
) -> Callable[[Callable[..., Any]], Verb]:
    """Make a function (its first argument the Session) a Verb.

    settings go to click.Command, context_settings for instance.  json=False is
    for the few verbs that hand the terminal to another program.
    """

    def decorate(function: Callable[..., Any]) -> Verb:
        if json:
            function = click.option(
                "--json",
                is_flag=True,
                expose_value=False,
                callback=_set_json,
                help="Print JSON on stdout.",
            )(function)
        wrapped = click.command(name, cls=Verb, examples=examples, place=place, **settings)
        return wrapped(click.pass_obj(function))

    return decorate


class VnodeParam(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A vnode: its id (1..31; 0 is the root) or its name; kept as the text given.

    Only the form is checked here.  Session.find tells whether there is one.
    """

    name = "vnode"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> str:
        text = str(value)
        if text.isascii() and (text.isdigit() or NAME.fullmatch(text)):
            return text
        return self.fail(f"{text!r} is neither a vnode's id nor a name", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        from click.shell_completion import CompletionItem

        from cli.completion import live_vnodes

        return [
            CompletionItem(name, help=state)
            for name, state in live_vnodes(ctx.find_object(Session) or Session())
            if name.startswith(incomplete)
        ]


class IncidentParam(click.ParamType):  # type: ignore[type-arg]
    """An incident's number, 1 or more."""

    name = "incident"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text):
            return int(text)
        return self.fail(f"{text!r} is no incident number", param, ctx)


class SecondsParam(click.FloatRange):
    """A time in seconds within bounds; NaN, which is in any range, is refused too."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__(least, most)

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if seconds != seconds:
            self.fail(f"{value!r} is no time", param, ctx)
        return seconds


VNODE = VnodeParam()
INCIDENT = IncidentParam()

vnode_argument = click.argument("vnode", type=VNODE, metavar="VNODE")
vnodes_argument = click.argument("vnodes", type=VNODE, metavar="VNODE...", nargs=-1, required=True)
wait_option = click.option(
    "--wait", is_flag=True, help="Return when it is done, not when accepted."
)
timeout_option = click.option(
    "--timeout",
    type=SecondsParam(0.1, 86400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up waiting after this long (exit code 7).",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print what would be done, and do nothing."
)
slot_option = click.option(
    "--slot", type=click.Choice(["a", "b"]), help="This one instead of the usual."
)
force_option = click.option(
    "--force", is_flag=True, help="Out of quarantine too, with a fresh budget."
)

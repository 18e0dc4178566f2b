# SPDX-License-Identifier: GPL-2.0-or-later
"""What the documents name exists, and what there is to be named is in the documents."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from cli.main import ENTRIES, overview
from watchdog import config, slot_verbs, states, verbs

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = ("adeos", "bench", "box", "cli", "crashdump", "debugger", "docs", "introspect",
           "kexec_restart", "script", "tests", "tui", "watchdog")  # fmt: skip


def ids(value: object) -> str | None:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else None


def lines(page: Path) -> Iterator[str]:
    """Lines of code blocks, and what stands in backticks."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.M | re.S)
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for block in [*fenced, *re.findall(r"^ {4}.*$", text, re.M)]:
        yield from block.splitlines()
    yield from (" ".join(one.split()) for one in re.findall(r"`([^`]+)`", text))


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each vnode-debug command line in a page."""
    for line in lines(page):
        for part in re.split(r"&&|\|(?!\w)|;", re.split(r"(?<=\S)(?: {3,}|  #)", line)[0]):
            found = re.match(r"[\s$#>(]*(?:\S+:/# )?(?:source <\()?vnode-debug((?: .*)?)$", part)
            if found is None or "Usage:" in line:
                continue
            try:
                yield shlex.split(found[1].split(" #")[0].rstrip(")"))
            except ValueError:  # a quote that ends after the pipe
                yield found[1].split()


def options_of(command: click.Command) -> set[str]:
    found = {word for param in command.params for word in (*param.opts, *param.secondary_opts)}
    return found | {"--help"}


def check(words: list[str]) -> None:
    command: click.Command = overview
    at = 0
    while isinstance(command, click.Group):
        if at == len(words):
            return
        word = words[at]
        at += 1
        if word.startswith("-"):
            assert word.split("=")[0] in options_of(command), words
            at += word == "--host"
            continue
        if word.isupper() or not re.fullmatch(r"[a-z-]+", word):
            return  # VERB, or a line about the program
        if command is overview:
            assert word in ENTRIES, words
            command = import_module(ENTRIES[word].module).command
        else:
            command = command.commands[word]
    foreign = {"attach", "exec"}
    for word in words[at:]:
        if word == "--":
            break
        if re.match(r"--?[a-z]", word):
            known = word.split("=")[0].strip("[]") in options_of(command)
            bundle = re.fullmatch(r"-[a-z]\d*", word)
            short = bundle and word[:2] in options_of(command)
            assert known or short or command.name in foreign, f"{words}: {word}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_in_the_documents_have_their_options(page: Path) -> None:
    for words in commands(page):
        check(words)


def test_the_documents_are_full_of_commands() -> None:
    assert sum(1 for page in PAGES for _ in commands(page)) > 100


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    def anchors(text: str) -> set[str]:
        heads = re.findall(r"^#+ (.*)$", text, re.M)
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}

    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_that_the_documents_name_exist(page: Path) -> None:
    """`watchdog/states.py` and the like; CHANGELOG.md may speak of what has been."""
    if page.name == "CHANGELOG.md":
        return
    folders = "|".join(FOLDERS)
    for name in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]*\w)", page.read_text()):
        place = ROOT / name
        found = place.exists() or place.with_suffix(".py").exists()
        assert found or place.with_name(place.name.partition(".")[0] + ".py").exists(), name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_modules_that_are_run_exist(page: Path) -> None:
    """`python -m bench.warm` and the like."""
    text = " ".join(page.read_text().split())
    for name in re.findall(r"python3? -m ((?:bench|cli|tests)\.[\w.]*\w)", text):
        place = ROOT / name.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name


def test_every_module_that_the_architecture_names_exists() -> None:
    """Also the bare names of a line that begins with a folder: "watchdog/a.py, b.py"."""
    known = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
    found = re.findall(r"\b(\w+\.(?:py|c|S|h))\b", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(found) > 30
    assert set(found) <= known | {"vnode_debug.py"}


def settings() -> Iterator[tuple[str, str, Any]]:
    """(table, key, default) of every key of the config."""
    tables = {
        "[machine]": config.MachineConfig, "[watch]": config.Watch, "[dumps]": config.Dumps,
        "[hooks]": config.Hooks, "[[vnode]]": config.VnodeConfig,
        "[vnode.watch]": config.VnodeWatch, "[vnode.restart]": config.Restart,
    }  # fmt: skip
    for name, kind in tables.items():
        for field in msgspec.structs.fields(kind):
            if field.name not in ("watch", "restart"):
                yield name, field.name, field.default


def section(name: str) -> str:
    text = (ROOT / "docs/config.md").read_text()
    return re.split(r"^## ", text.partition(f"\n## {name}\n")[2], maxsplit=1, flags=re.M)[0]


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(list(value) if value == () else value)


@pytest.mark.parametrize(("table", "key", "default"), list(settings()))
def test_every_key_of_the_config_is_documented(table: str, key: str, default: Any) -> None:
    text = (ROOT / "docs/config.md").read_text() if table == "[machine]" else section(table)
    if table == "[machine]":
        assert re.search(rf"^{key} = ", text, re.M)
        return
    if isinstance(default, config.Layer):
        row = rf"^\| `{key}` \| {default.period_ms} \| {default.limit_ms} \|"
        words = f"`{key} = {{ period_ms = {default.period_ms}, limit_ms = {default.limit_ms} }}`"
        assert re.search(row, text, re.M) or words in text
        return
    for cells in re.findall(r"^\| (.*?) \| (.*?) \|", text, re.M):
        names = [name.strip(" `") for name in cells[0].split(",")]
        if key in names:
            if default is not msgspec.NODEFAULT:
                assert cells[1].split(", ")[names.index(key)] == toml(default)
            return
    # In prose: `key` (default), or `key = default` and what the other value does.
    said = re.search(rf"`{key}` \({re.escape(str(default))}\)", text)
    assert said or re.search(rf"`{key} = [^`]+`", text), key


def test_every_key_that_the_config_page_shows_exists() -> None:
    known = {key for _, key, _ in settings()} | {"period_ms", "limit_ms"}
    text = (ROOT / "docs/config.md").read_text()
    shown = re.findall(r"^(\w+) = ", text, re.M) + [
        name.strip(" `")
        for cell in re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \| [^|]* \| ", text, re.M)
        for name in cell.split(",")
    ]
    assert len(shown) > 40
    words = set(config.fast_boot.CMDLINE.split())
    assert set(shown) - words <= known


def test_the_control_page_lists_the_verbs() -> None:
    text = (ROOT / "docs/control.md").read_text()
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M))
    assert listed == set(verbs.VERBS) | set(slot_verbs.VERBS)
    words = text.partition("## States")[2].split("`")[1].split()
    assert set(words) == {state.word for state in states.State}


def test_the_control_page_names_every_argument() -> None:
    text = (ROOT / "docs/control.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*)$", text, re.M))
    said = set(re.findall(r"\w+", " ".join(rows.values())))
    for name in ("verbs", "slot_verbs"):
        source = (ROOT / f"watchdog/{name}.py").read_text()
        keys = re.findall(r'request(?:\.get\(|, )"(\w+)"', source)
        assert keys
        assert set(keys) <= said


def test_the_operating_page_lists_the_metrics() -> None:
    text = (ROOT / "docs/operating.md").read_text().partition("| `vnode_debug_` |")[2]
    rows = text.partition("\n\n")[0]
    source = (ROOT / "cli/exposition.py").read_text()
    names = set(re.findall(r'[Ff]amily\(\s*"([a-z_]+)"', source))
    assert len(names) > 15
    assert set(re.findall(r"`([a-z_]+)`", rows.split("\n", 2)[2])) == names

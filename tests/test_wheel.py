# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel: built from the tree, installed beside PyPI's watchdog, and both work.

Wants a package index (setuptools to build with, the dependencies, watchdog).
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCE = ("build", "*.egg-info", "__pycache__", "tests", ".*")


def run(*words: str | Path, cwd: Path | None = None) -> str:
    """Stdout of a command that has to succeed."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the tree: a build/ left in the tree would leak deleted files into it."""
    place = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, place / "tree", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", place, place / "tree")
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a fresh environment with the wheel and PyPI's watchdog in it."""
    place = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", place)
    run(place / "bin/pip", "install", "-q", wheel, "watchdog")
    return place / "bin"


def test_the_wheel_owns_one_module_and_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    data = {name for name in names if name.split("/")[0].endswith(".data")}
    assert {name.split("/", 1)[1] for name in data} == {"data/share/man/man1/vnode-debug.1"}
    assert top - {name.split("/")[0] for name in data} == {"vnode_debug.py", "vnode_debug_bundle"}


def test_the_wheel_holds_every_package_and_what_the_modules_are_built_from(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {f"vnode_debug_bundle/{package}/__init__.py" for package in packages} <= names
    units = [path.name for path in (ROOT / "watchdog/systemd").iterdir()]
    assert units and {f"vnode_debug_bundle/watchdog/systemd/{unit}" for unit in units} <= names
    sources = [p for p in (ROOT / "adeos").rglob("*") if p.suffix in (".c", ".h", ".S")]
    assert sources
    for source in sources:
        if not source.name.endswith(".mod.c"):
            assert f"vnode_debug_bundle/{source.relative_to(ROOT)}" in names


def test_it_works_beside_the_other_watchdog(installed: Path, tmp_path: Path) -> None:
    command = installed / "vnode-debug"
    version = run(command, "--version", cwd=tmp_path)
    assert version.startswith("vnode-debug ")
    assert "vnode-debug status" in run(command, "status", "--help", cwd=tmp_path)
    theirs = "import watchdog.observers as o; print(o.__file__); print(o.Observer().is_alive())"
    where, alive = run(installed / "python", "-c", theirs, cwd=tmp_path).splitlines()
    assert where.endswith("site-packages/watchdog/observers/__init__.py")
    assert alive == "False"
    ours = (
        "import sys, vnode_debug; sys.path.insert(0, str(vnode_debug.bundle()))\n"
        "import watchdog.client; print(watchdog.client.__file__)"
    )
    where = run(installed / "python", "-c", ours, cwd=tmp_path)
    assert where.strip().endswith("vnode_debug_bundle/watchdog/client.py")


def test_every_verb_has_help_and_the_shells_have_completion(
    installed: Path, tmp_path: Path
) -> None:
    """In one process of the installed Python: a start for each of the verbs takes too long."""
    code = (
        "import sys, vnode_debug; sys.path.insert(0, str(vnode_debug.bundle()))\n"
        "from cli.main import ENTRIES, run\n"
        "assert all(run([verb, '--help']) == 0 for verb in ENTRIES)\n"
        "print(*ENTRIES)"
    )
    words = run(installed / "python", "-c", code, cwd=tmp_path)
    verbs = words.splitlines()[-1].split()
    assert len(verbs) > 30
    assert all(f"Usage: vnode-debug {verb}" in words.replace("\n  ", " ") for verb in verbs)
    for shell in ("bash", "zsh", "fish"):
        script = tmp_path / f"completion.{shell}"
        script.write_text(run(installed / "vnode-debug", "completion", shell))
        if shutil.which(shell):
            run(shell, "-n", script)
    code = f'source {script.with_suffix(".bash")}; export PATH="{installed}:$PATH"\n'
    code += "COMP_WORDS=(vnode-debug gdb) COMP_CWORD=1; _vnode_debug_completion vnode-debug\n"
    assert "gdb-exec" in run("bash", "-c", code + 'echo "${COMPREPLY[@]}"')


def test_the_manual_page_is_where_man_looks(installed: Path) -> None:
    page = installed.parent / "share/man/man1/vnode-debug.1"
    assert page.read_text() == (ROOT / "docs/vnode-debug.1").read_text()
    if shutil.which("groff"):
        shown = run("groff", "-man", "-Tascii", "-ww", "-P-cbou", page)
        assert "vnode-debug attach --stop 2" in shown and "EXIT STATUS" in shown


def test_the_checkout_runs_without_being_installed(tmp_path: Path) -> None:
    launcher = ROOT / "vnode_debug.py"
    assert run(sys.executable, launcher, "--version", cwd=tmp_path).startswith("vnode-debug ")
    link = tmp_path / "vnode-debug.py"
    link.symlink_to(launcher)
    assert "Usage: vnode-debug" in run(sys.executable, link, "--help", cwd=tmp_path)


def test_an_editable_install_runs_the_checkout(tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    run(tmp_path / "venv/bin/pip", "install", "-q", "click", "--no-deps", "-e", tree)
    code = "import vnode_debug; print(vnode_debug.bundle())"
    assert run(tmp_path / "venv/bin/python", "-c", code, cwd=tmp_path).strip() == str(tree)
    assert run(tmp_path / "venv/bin/vnode-debug", "--version").startswith("vnode-debug ")

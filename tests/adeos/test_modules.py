# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel modules and the beat program build cleanly and say what they are.

What they do needs a machine: see the tests marked ``box``.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("kmb", "vnode_agent")


def installed_headers() -> list[str]:
    prefix = "linux-headers-"
    return sorted(
        path.parent.name.removeprefix(prefix)
        for path in Path("/usr/src").glob(f"{prefix}*-amd64/Module.symvers")
    )


@pytest.fixture(scope="module")
def kver() -> str:
    versions = installed_headers()
    if not versions:
        pytest.skip("no linux-headers-*-amd64 package is installed")
    return versions[-1]


@pytest.fixture(scope="module")
def built(kver: str) -> Path:
    run = subprocess.run(
        [ROOT / "script" / "modules", kver], capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return ROOT / "build" / "modules" / kver


def modinfo(path: Path, field: str) -> str:
    tool = shutil.which("modinfo") or "/sbin/modinfo"
    return subprocess.run(
        [tool, "-F", field, path], capture_output=True, text=True, check=True
    ).stdout


def test_second_run_builds_nothing(built: Path, kver: str) -> None:
    before = {name: (built / f"{name}.ko").stat().st_mtime_ns for name in MODULES}
    run = subprocess.run(
        [ROOT / "script" / "modules", kver], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0
    assert "build kmb" not in run.stdout
    assert before == {name: (built / f"{name}.ko").stat().st_mtime_ns for name in MODULES}


def test_source_tree_stays_clean(built: Path) -> None:
    for name in ("kmb", "agent"):
        files = {path.suffix for path in (ROOT / "adeos" / name).iterdir()}
        assert files <= {".c", ".h", ".S", ""}, files


@pytest.mark.parametrize("name", MODULES)
def test_modinfo(built: Path, kver: str, name: str) -> None:
    path = built / f"{name}.ko"
    assert modinfo(path, "license").strip() == "GPL"
    assert modinfo(path, "description").strip()
    assert modinfo(path, "vermagic").split()[0] == kver


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("kmb", {"mem", "low", "cpus", "init_us", "start_retries", "skip_sipi"}),
        ("vnode_agent", {"bridge", "wait_us"}),
    ],
)
def test_parameters(built: Path, name: str, parameters: set[str]) -> None:
    lines = modinfo(built / f"{name}.ko", "parm").splitlines()
    assert {line.split(":")[0] for line in lines} == parameters
    assert all(re.search(r":.+\(\w+\)$", line) for line in lines), lines


@pytest.mark.parametrize("name", ["kmb", "agent"])
def test_no_compiler_warnings(built: Path, name: str) -> None:
    log = (built / f"{name}.log").read_text()
    assert "warning:" not in log, log


@pytest.mark.parametrize("name", ["kmb", "agent"])
def test_sparse(kver: str, name: str, tmp_path: Path) -> None:
    if not shutil.which("sparse"):
        pytest.skip("sparse is not installed")
    for part in (name, "include"):
        shutil.copytree(ROOT / "adeos" / part, tmp_path / part)
    run = subprocess.run(
        ["make", "-s", "-C", f"/usr/src/linux-headers-{kver}", f"M={tmp_path / name}",
         "W=1", "C=2", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "warning:" not in run.stderr, run.stderr


@pytest.mark.parametrize("arguments", [["-x"], ["../x"], ["6.1; true"], ["a", "b"]])
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    run = subprocess.run(
        [ROOT / "script" / "modules", *arguments], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert run.stderr.startswith("modules: ")
    assert len(run.stderr.splitlines()) == 1


def beat(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = ROOT / "build" / "user" / "vnode-beat"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30)


@pytest.mark.skipif(Path("/dev/vnode").exists(), reason="this is a vnode")
def test_beat_without_a_vnode_says_so(built: Path) -> None:
    run = beat("--once")
    assert run.returncode == 5
    assert run.stdout == ""
    assert run.stderr.splitlines() == [
        "vnode-beat: /dev/vnode: No such file or directory; is vnode_agent.ko loaded?"
    ]


def test_beat_usage(built: Path) -> None:
    assert beat("--twice").returncode == 2
    assert beat("--once", "x").returncode == 2


def test_beat_is_static_and_small(built: Path) -> None:
    program = ROOT / "build" / "user" / "vnode-beat"
    data = program.read_bytes()
    assert data[:4] == b"\x7fELF"
    assert b"/lib64/ld-linux" not in data
    assert len(data) < 1 << 20

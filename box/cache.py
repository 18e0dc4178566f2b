# SPDX-License-Identifier: GPL-2.0-or-later
"""Built things, kept by the content they were built from.

An entry is complete or absent: it is made in a scratch directory and renamed into place.  Two
processes that want the same entry wait for each other; a killed build leaves only a scratch
directory, which the next build removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from box.errors import BuildFailed, HostLacks

Progress = Callable[[str], None]

REPOSITORY = Path(__file__).resolve().parent.parent
SCRATCH = ".scratch-"


def directory() -> Path:
    """$VNODE_DEBUG_CACHE, else vnode-debug in the user's cache directory; created when missing."""
    named = os.environ.get("VNODE_DEBUG_CACHE")
    if named:
        path = Path(named)
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        path = Path(base) / "vnode-debug"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostLacks(
            f"cache directory {path}: {error.strerror}; set VNODE_DEBUG_CACHE to a writable one"
        ) from error
    return path.absolute()


def digest(*parts: str | bytes) -> str:
    """SHA-256 over the parts and their borders, 16 hex digits."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:16]


def entry(name: str, build: Callable[[Path], Path]) -> Path:
    """Path of the cached file or directory `name` (which holds a digest of all its inputs).

    `build` gets an empty scratch directory and returns the finished path within it.
    """
    root = directory()
    final = root / name
    if final.exists():
        return final
    with _locked(root / f".lock-{name}"):
        if final.exists():
            return final
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH + name + "-", dir=root))
        try:
            for old in root.glob(f"{SCRATCH}{name}-*"):
                if old != scratch:
                    shutil.rmtree(old, ignore_errors=True)
            build(scratch).rename(final)
        except OSError as error:
            raise BuildFailed(f"{name} in {root}: {error}; is there space left?") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return final


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replaces `path` as a whole; a reader sees the old or the new content."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            os.fchmod(out.fileno(), mode)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def place(source: Path, target: Path) -> None:
    """A copy of a cached file in the checkout, by hard link where that works."""
    try:
        if source.samefile(target):
            return
    except OSError:
        pass
    target.parent.mkdir(parents=True, exist_ok=True)
    spare = target.with_name(f".{target.name}.{os.getpid()}")
    spare.unlink(missing_ok=True)
    try:
        os.link(source, spare)
    except OSError:
        shutil.copyfile(source, spare)
    spare.rename(target)


def program(name: str, package: str) -> str:
    """Path of a program, or HostLacks naming the Debian package that has it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise HostLacks(f"{name} is missing: apt-get install {package}")
    return path


def run(what: str, argv: Sequence[str | Path], *, timeout: float, cwd: Path | None = None) -> str:
    """Output of a build step; BuildFailed with its last words when it fails."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{what}: no end after {timeout:.0f} s: {argv[0]}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = " | ".join(lines[-4:])[:600] or "no output"
        raise BuildFailed(f"{what}: {argv[0]} ended with {done.returncode}: {last}")
    return done.stdout

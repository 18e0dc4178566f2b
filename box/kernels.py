# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock Debian kernels, fetched by apt and unpacked into the cache without installing them.

Limits: the host's apt sources decide the version; amd64 only.
"""

from __future__ import annotations

import lzma
import re
from dataclasses import dataclass
from functools import cache as cache_calls
from pathlib import Path
from typing import NamedTuple

from box import cache
from box.errors import BadOption, BuildFailed, HostLacks

FLAVOURS = {"cloud": "linux-image-cloud-amd64", "amd64": "linux-image-amd64"}


@dataclass(frozen=True)
class KernelImage:
    """An unpacked kernel package; `tree` holds boot/ and lib/modules/."""

    version: str  # as uname -r says
    tree: Path

    @property
    def vmlinuz(self) -> Path:
        return self.tree / "boot" / f"vmlinuz-{self.version}"

    @property
    def system_map(self) -> Path:
        return self.tree / "boot" / f"System.map-{self.version}"

    @property
    def config(self) -> Path:
        return self.tree / "boot" / f"config-{self.version}"

    @property
    def modules(self) -> Path:
        return self.tree / "lib" / "modules" / self.version

    def load_order(self, names: list[str]) -> list[Path]:
        """Files of the named modules with all they need, in the order to load them.

        A name that is built in (or that this kernel does not have) gives no file.
        """
        return [
            self.modules / path
            for path in load_order((self.modules / "modules.dep").read_text(), names)
        ]


class Meta(NamedTuple):
    """What a flavour's meta package says."""

    kernel: str  # as uname -r says, e.g. 6.1.0-56-cloud-amd64
    package_version: str  # e.g. 6.1.192-2


def parse_meta(output: str) -> Meta:
    """Out of `apt-cache show --no-all-versions linux-image-...-amd64`."""
    depends = re.search(r"^Depends:.*\blinux-image-(\d[\w.+~-]*)", output, re.MULTILINE)
    version = re.search(r"^Version: ([\w.+~:-]+)$", output, re.MULTILINE)
    if depends is None or version is None:
        raise HostLacks("apt knows no Debian kernel image: check its sources, then apt-get update")
    return Meta(depends[1], version[1].replace(":", "_"))


def load_order(modules_dep: str, names: list[str]) -> list[str]:
    """Paths out of modules.dep: each module after those it needs, none twice."""
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        by_name[Path(path).name.partition(".")[0].replace("-", "_")] = path
    order: list[str] = []
    for name in names:
        path = by_name.get(name.replace("-", "_"), "")
        if not path:
            continue
        # depmod lists all needed modules, the ones to load first last
        order += [item for item in [*reversed(needs[path]), path] if item not in order]
    return order


def module_bytes(path: Path) -> bytes:
    """A module's ELF image; Debian 13 compresses its modules with xz."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


@cache_calls
def current(flavour: str) -> Meta:
    """The newest kernel of a flavour that apt knows of."""
    if flavour not in FLAVOURS:
        raise BadOption(f"no kernel flavour {flavour!r}: choose one of {', '.join(FLAVOURS)}")
    argv = ["apt-cache", "show", "--no-all-versions", FLAVOURS[flavour]]
    return parse_meta(cache.run("kernel version", argv, timeout=60))


def fetch(flavour: str, progress: cache.Progress) -> KernelImage:
    """The current kernel of a flavour, unpacked."""
    version, package_version = current(flavour)
    package = f"linux-image-{version}"

    def build(scratch: Path) -> Path:
        progress(f"kernel {version}: fetching the Debian package")
        cache.run(
            package,
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package],
            timeout=600,
            cwd=scratch,
        )
        debs = list(scratch.glob("*.deb"))
        if len(debs) != 1:
            raise BuildFailed(f"apt-get download {package} gave {len(debs)} files")
        tree = scratch / "tree"
        cache.run(package, ["dpkg-deb", "-x", debs[0], tree], timeout=300)
        cache.run(package, [cache.program("depmod", "kmod"), "-b", tree, version], timeout=120)
        return tree

    return KernelImage(version, cache.entry(f"{package}_{package_version}", build))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The launcher: finds the packages, then hands over to cli.main.

The packages keep plain names (adeos, watchdog, ...).  In an installed copy they
lie in one private directory beside this file, because PyPI's "watchdog" owns
that name at top level; in a checkout they lie beside this file themselves.
docs/adr/0001-bundle.md tells why.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"


def bundle() -> Path:
    """The directory that holds the packages."""
    here = Path(__file__).resolve().parent
    installed = here / "vnode_debug_bundle"
    return installed if installed.is_dir() else here


def main() -> None:
    """Entry point of the vnode-debug command: exits with the verb's code."""
    sys.path.insert(0, str(bundle()))
    from cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

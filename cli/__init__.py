# SPDX-License-Identifier: GPL-2.0-or-later
"""The vnode-debug command: one verb a file, listed in cli.main.GROUPS."""

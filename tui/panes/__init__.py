# SPDX-License-Identifier: GPL-2.0-or-later
"""The panes of the vnode screen, one file each."""

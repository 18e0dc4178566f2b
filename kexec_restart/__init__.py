# SPDX-License-Identifier: GPL-2.0-or-later
"""Images staged ahead, restart strategies and the restart budget."""

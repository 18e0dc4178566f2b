# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard: a terminal screen over all vnodes, read from shared memory."""

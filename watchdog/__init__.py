# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches the vnodes: config, detector, the pure supervisor, the daemon, its control socket."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The nanokernel's Python face: memory, CPUs, bridges and portals of the vnodes of one machine."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture of a dead vnode's memory, the ELF vmcore, and the incident store.

Knows the bridge's register frames (``adeos``) and asks ``introspect`` where a
kernel is; knows nothing of detection or restart.  :mod:`crashdump.analysis`
explains a dump by what :mod:`crashdump.capture` leaves in an incident's
directory (``vmcore``, ``crash.json``, ``kmsg.txt``).
"""

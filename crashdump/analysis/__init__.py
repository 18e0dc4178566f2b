# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened: a crash explained from memory alone, without debuginfo.

    from crashdump.analysis.run import analyze_file
    from crashdump.analysis.text import render

    print(render(analyze_file(Path("vmcore"))))

A report is plain data (report.py); text, JSON and HTML are renderings of it.
"""

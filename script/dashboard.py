# SPDX-License-Identifier: GPL-2.0-or-later
"""A picture of the dashboard: python3 script/dashboard.py COLUMNSxROWS [KEY|SECONDS]...

Opens it without a terminal, presses the keys, waits where a number stands, and prints the screen as
an SVG file.  script/picture runs it in the box.
"""

from __future__ import annotations

import asyncio
import sys


async def picture(size: tuple[int, int], steps: list[str]) -> str:
    """The screen after `steps`."""
    from cli.session import Session
    from tui.app import Dashboard
    from tui.client import Client

    session = Session()
    client = Client(session.machine(), session.client, session.open_store)
    app = Dashboard(client, readonly=True)
    async with app.run_test(size=size) as pilot:
        for step in steps:
            if step.replace(".", "", 1).isdigit() and len(step) > 1:
                await asyncio.sleep(float(step))
            else:
                await pilot.press(step)
        await pilot.pause()
        return app.export_screenshot(title="vnode-debug tui")


def main(size: str, *steps: str) -> None:
    """Print it."""
    columns, _, rows = size.partition("x")
    sys.stdout.write(asyncio.run(picture((int(columns), int(rows)), list(steps))))


if __name__ == "__main__":
    main(*sys.argv[1:])

# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that go on: `vdsm status --watch` and `vdsm events`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing

from rich.live import Live
from rich.markup import escape
from rich.text import Text

from vdsm.cli.connection import connect, explain
from vdsm.cli.output import console, print_json
from vdsm.cli.overview import gather, screen
from vdsm.client import ClientError, Notice


async def show_status(as_json: bool) -> None:
    async with connect() as client:
        seen = await gather(client)
    if as_json:
        print_json(seen.to_json())
    else:
        console().print(screen(seen))


async def watch_status(every_s: float) -> None:
    """Until Ctrl-C; an agent that is away is said so and looked for again."""
    with Live(console=console(), screen=sys.stdout.isatty(), auto_refresh=False) as live:
        while True:
            try:
                async with connect() as client:
                    live.update(screen(await gather(client)), refresh=True)
            except ClientError as e:
                live.update(Text(explain(e).text, style="red"), refresh=True)
            await asyncio.sleep(every_s)


async def show_events(for_s: float | None, as_json: bool) -> None:
    """For so many seconds, or until Ctrl-C."""
    try:
        async with asyncio.timeout(for_s), connect() as client, aclosing(client.events()) as events:
            async for notice in events:
                _tell(notice, as_json)
    except TimeoutError:
        return


def _tell(notice: Notice, as_json: bool) -> None:
    if as_json:
        line = json.dumps({"method": notice.method, "params": dict(notice.params)}, ensure_ascii=False)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        return
    params = {key: value for key, value in notice.params.items() if key != "notify_time"}
    what = f"[bold]{escape(notice.component)}[/] {escape(notice.operation)} {escape(notice.unique_id)}"
    body = escape(json.dumps(params, ensure_ascii=False)) if params else ""
    line = f"[dim]{time.strftime('%H:%M:%S')}[/] {what} {body}"
    # a line is a line on a terminal; pipes and --json get the whole
    is_cut = sys.stdout.isatty()
    console().print(line, soft_wrap=not is_cut, no_wrap=is_cut, overflow="ellipsis" if is_cut else None)

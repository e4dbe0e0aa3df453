# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that go on: `vdsm status --watch` and `vdsm events`."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from vdsm.cli.connection import connect, explain
from vdsm.cli.exits import Exit
from vdsm.cli.output import console, drawn, print_json, show
from vdsm.cli.overview import gather, screen
from vdsm.client import ClientError, Notice

_CLEAR = "\x1b[H\x1b[2J"
# what one looks for in an event comes first
_FIRST = ("status", "pauseCode", "exitMessage", "exitReason", "exitCode", "message")
_PLAIN = re.compile(r"[\w./:@+-]+")


async def show_status(as_json: bool) -> Exit:
    """How the command ends: other than done when a part has no answer."""
    async with connect() as client:
        seen = await gather(client)
    if as_json:
        print_json(seen.to_json())
    else:
        show(screen(seen))
    return seen.exit


async def watch_status(every_s: float) -> None:
    """Until Ctrl-C; an agent that is away is said so and looked for again. A pipe gets one screen after the other."""
    out = console()
    out.set_alt_screen(out.is_terminal)
    try:
        while True:
            try:
                async with connect() as client:
                    seen: RenderableType = screen(await gather(client))
            except ClientError as e:
                seen = Text(explain(e).text, style="red")
            text = drawn(seen)
            sys.stdout.write(_CLEAR + fitting(text, out.height) if out.is_terminal else f"{_now()}\n{text}\n")
            sys.stdout.flush()
            await asyncio.sleep(every_s)
    finally:
        out.set_alt_screen(False)


def fitting(text: str, height: int) -> str:
    """As many lines as a terminal shows; what is left out is said so."""
    lines = text.splitlines()
    if len(lines) < height:
        return text
    shown = lines[: height - 2]
    return "\n".join([*shown, f"… and {len(lines) - len(shown)} lines more: make the window higher, or vdsm status\n"])


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


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
    # whole, on a terminal too: a cut line hides what it was looked at for
    console().print(
        f"[dim]{time.strftime('%H:%M:%S')}[/] {what} {escape(words(notice.unique_id, params))}".rstrip(), soft_wrap=True
    )


def words(unique_id: str, params: Mapping[str, Any]) -> str:
    """``key=value``, the most important first, the id not again. An event of a VM has all in an object by its id."""
    own = params.get(unique_id)
    flat = {**{k: v for k, v in params.items() if k != unique_id}, **own} if isinstance(own, dict) else dict(params)
    flat = {key: value for key, value in flat.items() if value != unique_id}
    order = sorted(flat, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    return " ".join(f"{key}={_word(flat[key])}" for key in order)


def _word(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)

# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage connections`: reads records, links and the kernel's mounts, so it works while the agent is down.

Nothing that is connected is touched: it may hang. Whether its domains answer says `vdsm status`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass

from rich.markup import escape

from storage.in_use import InUse
from storage.servers.records import ConnectionRecords, Record
from storage.source import MountedPlace
from vdsm.cli.output import console, plain, print_json, show
from vdsm.common.ids import is_uuid
from vdsm.common.paths import Paths

_COLOURS = {"connected": "green", "failed": "red", "lost": "red"}


@dataclass(frozen=True)
class Seen:
    """``state``: connected, failed, lost (it was connected and is not there), or unknown here (nobody on record)."""

    folder: str
    kind: str
    connection: str
    state: str
    reason: str
    wanted_by: list[str]
    used_by: list[str]


def connections(paths: Paths) -> list[Seen]:
    records = ConnectionRecords(paths.connections).all()
    names = {
        *records,
        *(name for name in _names(paths.mounts) if MountedPlace(os.path.join(paths.mounts, name)).is_connected),
    }
    return [_seen(paths, name, records.get(name)) for name in sorted(names)]


def show_connections(paths: Paths, as_json: bool) -> None:
    found = connections(paths)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        console().print("No storage is connected.")
        return
    table = plain("connection", "kind", "state", "used by", "wanted by", "reason")
    for one in found:
        state = f"[{_COLOURS.get(one.state, 'yellow')}]{one.state}[/]"
        users = escape(", ".join(one.used_by)) or "[dim]nobody[/]"
        wanted = escape(", ".join(one.wanted_by))
        table.add_row(escape(one.connection), one.kind, state, users, wanted, escape(one.reason))
    show(table)


def _seen(paths: Paths, name: str, record: Record | None) -> Seen:
    path = os.path.join(paths.mounts, name)
    users = _users(paths, path)
    if record is None:
        return Seen(name, "", name, "unknown here", "", [], users)
    state, reason = "connected", record.error
    if not MountedPlace(path).is_connected:
        state = "failed" if record.error else "lost"
        reason = record.error or "it was connected and is not there any more"
    return Seen(name, record.kind, record.spec, state, reason, record.wanted_by, users)


def _users(paths: Paths, mount: str) -> list[str]:
    """Domains of connected pools, by the pool's links; then who has prepared images."""
    domains = {
        name
        for pool in filter(is_uuid, _names(paths.repository))
        for name in filter(is_uuid, _names(os.path.join(paths.repository, pool)))
        if _leads_below(os.path.join(paths.repository, pool, name), mount)
    }
    in_use = InUse(os.path.join(paths.run, "prepared"))
    users = {
        user
        for domain, image in in_use.images()
        if _leads_below(os.path.join(paths.storage_run, domain, image), mount)
        for user in in_use.users(domain, image)
    }
    return [*(f"domain {domain}" for domain in sorted(domains)), *sorted(users)]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _leads_below(link: str, mount: str) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(link).startswith(f"{mount}/")
    return False

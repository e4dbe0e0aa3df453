# SPDX-License-Identifier: GPL-2.0-or-later
"""What was asked to be connected here, by which ids, and how it ended: for people, also after a restart of the agent.

One file for each folder under ``mnt``, in ``/run/vdsm/connections``: it vanishes at boot, as the connections do. No
decision is made by it: what is mounted says the kernel, what may be mounted root's own records. Options are not in it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import msgspec

from storage.servers.kinds import Connection, folder_name
from vdsm.common.atomic import remove_durably, write_atomic

log = logging.getLogger("vdsm.storage.connections")

SUFFIX = ".json"


class Record(msgspec.Struct, frozen=True):
    """``error``: why the last attempt failed; empty when it did not. ``wall_s``: when that was."""

    kind: str
    spec: str
    wanted_by: list[str]
    wall_s: float
    error: str = ""


class ConnectionRecords:
    def __init__(self, folder: str, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def connected(self, connection: Connection, error: str) -> None:
        """After an attempt to connect: what is wanted now, and what came of it."""
        known = self._find(folder_name(connection))
        ids = {connection.connection_id, *(known.wanted_by if known else [])}
        self._write(connection, sorted(ids), error)

    def disconnected(self, connection: Connection, error: str) -> None:
        """After an attempt to disconnect."""
        name = folder_name(connection)
        known = self._find(name)
        if known is None:
            return
        if error:
            self._write(connection, known.wanted_by, error)
            return
        try:
            remove_durably(self._path(name))
        except OSError as e:
            log.error("%s stays: %s", self._path(name), e)

    def all(self) -> dict[str, Record]:
        """By the folder's name."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return {}
        folders = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
        found = {folder: self._find(folder) for folder in folders}
        return {name: record for name, record in found.items() if record is not None}

    def _write(self, connection: Connection, ids: list[str], error: str) -> None:
        """A record that can't be written is told; it stops no connection."""
        record = Record(connection.kind.value, connection.spec, ids, self._clock(), error)
        try:
            os.makedirs(self._folder, mode=0o755, exist_ok=True)
            write_atomic(self._path(folder_name(connection)), msgspec.json.encode(record))
        except OSError as e:
            log.error("connection %s is not on record: %s", connection.spec, e)

    def _find(self, name: str) -> Record | None:
        try:
            with open(self._path(name), "rb") as f:
                return msgspec.json.decode(f.read(), type=Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as e:
            log.error("%s can't be read: %s", self._path(name), e)
            return None

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name + SUFFIX)

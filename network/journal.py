# SPDX-License-Identifier: GPL-2.0-or-later
"""What is on disk: the journal of a change that is under way, and the configurations.

    journal   there while a change is not kept: all its steps with their inverses, the deadline, what to keep
    running   the networks that we run, and those that wait; of one boot (tagged with its id): a reboot falls back
    persistent  the networks that come back at boot

A network *waits* from boot until it runs again, is asked for anew or is removed: one whose NIC comes late is not
forgotten, whatever is changed and kept meanwhile.

All of it lies in a folder that only root can write: whoever writes a journal decides what root does.
Phases: *applying* (all inverses run when anybody finds it), *committing* (what to keep is written again).
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import msgspec

from network.model import Network as Net
from network.model import Networks
from network.plan import Step
from vdsm.common.atomic import remove_durably, write_atomic

T = TypeVar("T")
log = logging.getLogger("vdsm.network")

UNREADABLE = ".unreadable"


class Phase(StrEnum):
    APPLYING = "applying"
    COMMITTING = "committing"


@dataclass(frozen=True)
class Journal:
    id: str
    boot_id: str
    hold_s: float  # from when the switch is armed until it fires
    phase: Phase
    steps: tuple[Step, ...]
    inverses: tuple[Step, ...]  # in the order in which they run
    running: dict[str, Net]  # what runs when the change is kept
    persist: bool
    waiting: dict[str, Net] = field(default_factory=dict)  # and what waits then


@dataclass(frozen=True)
class Config:
    boot_id: str
    networks: dict[str, Net]
    waiting: dict[str, Net] = field(default_factory=dict)


class Folder:
    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(path, mode=0o700, exist_ok=True)

    def journal(self) -> Journal | None:
        return self._read("journal", Journal)

    def write_journal(self, journal: Journal) -> None:
        self._write("journal", msgspec.json.encode(journal))

    def clear_journal(self) -> None:
        remove_durably(os.path.join(self.path, "journal"))

    def running(self) -> dict[str, Net]:
        """The networks that we run in this boot."""
        config = self._of_this_boot()
        return config.networks if config is not None else {}

    def waiting(self) -> dict[str, Net]:
        """The persistent networks that were not restored in this boot: all, as long as nothing was written in it."""
        config = self._of_this_boot()
        return config.waiting if config is not None else self.persistent()

    def _of_this_boot(self) -> Config | None:
        config = self._read("running", Config)
        return config if config is not None and config.boot_id == boot_id() else None

    def write_running(self, networks: Networks, waiting: Networks) -> None:
        self._write("running", msgspec.json.encode(Config(boot_id(), dict(networks), dict(waiting))))

    def persistent(self) -> dict[str, Net]:
        return self._read("persistent", dict[str, Net]) or {}

    def write_persistent(self, running: Networks, waiting: Networks) -> None:
        self._write("persistent", msgspec.json.encode({**waiting, **running}))

    def write_kept(self, journal: Journal) -> None:
        """The configurations of a change that is kept; done again after a crash, also in a later boot."""
        if journal.boot_id == boot_id():
            self.write_running(journal.running, journal.waiting)
        if journal.persist:
            self.write_persistent(journal.running, journal.waiting)

    @contextmanager
    def locked(self, wait_s: float) -> Iterator[bool]:
        """One process at a time changes the kernel. Yields False when the holder did not let go in time."""
        fd = os.open(os.path.join(self.path, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            yield _lock(fd, wait_s)
        finally:
            os.close(fd)

    def _read(self, name: str, kind: type[T]) -> T | None:
        """None for what is not there. What can't be read is put aside for a person: it must not stop every change."""
        path = os.path.join(self.path, name)
        try:
            with open(path, "rb") as f:
                return msgspec.json.decode(f.read(), type=kind)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            os.replace(path, path + UNREADABLE)
            log.error("%s can't be read (%s) and was put aside as %s%s: check the networks", path, e, name, UNREADABLE)
            return None

    def _write(self, name: str, data: bytes) -> None:
        write_atomic(os.path.join(self.path, name), data, 0o600)


def _lock(fd: int, wait_s: float) -> bool:
    limit = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                return False
            time.sleep(0.02)  # flock has no wait with a deadline
        else:
            return True


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as f:
        return f.read().strip()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Labs that run, seen from another process: which hosts each has, and handles to work with them.

A starter describes its lab in ``lab.json`` of the folder that it holds (see `registry.folder`); a host by itself is a
lab without description. What is here is for the command line; tests hold their `Cluster` or `San` themselves.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from contrib.lab import registry
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from contrib.lab.microvm.host import MicroHost

DESCRIPTION = "lab.json"
AnyHost = PrivateHost | MicroHost


@dataclass(frozen=True)
class Lab:
    name: str
    kind: str
    # a process in the network namespace that has the cables
    fabric_pid: int = 0
    # in the order of their numbers
    hosts: Sequence[str] = ()
    networks: Sequence[str] = ()
    # what the hosts share: images and devices, as a host sees them
    storage: Sequence[str] = field(default=())

    def save(self, folder: Path) -> None:
        (folder / DESCRIPTION).write_text(json.dumps(asdict(self)))

    def number(self, host: AnyHost) -> int:
        return list(self.hosts).index(host.spec.name) + 1


@dataclass(frozen=True)
class Member:
    record: registry.Record
    lab: Lab | None

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def is_up(self) -> bool:
        return bool(self.record.host) and self.record.keeper_lives()

    def host(self) -> AnyHost:
        """A handle. Raises HostFailed when the host is down."""
        if not self.is_up:
            raise HostFailed(f"host {self.name} is not up")
        if self.record.kind == "micro":
            return MicroHost.attached(self.record.folder, self.record.host)
        return PrivateHost.attached(self.name, self.record.host, self.record.host_id)


def labs() -> list[Lab]:
    found = []
    for record in registry.records():
        if record.kind == "folder" and record.keeper_lives():
            with contextlib.suppress(OSError, ValueError, TypeError):
                found.append(Lab(**json.loads(Path(record.folder, DESCRIPTION).read_text())))
    return found


def members() -> list[Member]:
    """Every host of this machine, those of one lab together."""
    known = labs()
    found = []
    for record in registry.records():
        if record.kind != "folder":
            found.append(Member(record, next((lab for lab in known if record.name in lab.hosts), None)))
    return sorted(found, key=lambda member: (member.lab.name if member.lab else "", member.name))


def member(name: str) -> Member:
    """That host, by its whole name or the end of it that no other has. Raises HostFailed with the names there are."""
    everybody = members()
    exact = [one for one in everybody if one.name == name]
    close = exact or [one for one in everybody if one.name.endswith(f"-{name}")]
    if len(close) == 1:
        return close[0]
    names = ", ".join(one.name for one in close or everybody) or "none: `up` makes some"
    raise HostFailed(f"{'several hosts are' if close else 'no host is'} called {name}: {names}")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where domains come from: a source looks for them in places of one kind, and opens them there.

Mounted folders are the one that exists (`storage.file.source`); volume groups are to be another. A place is typed: who
has one can hand it to another process (`known`, `learn`), nobody takes it apart.

The rule of looking: connecting storage looks at it, and listing all storage looks at all. Otherwise a domain is asked
for by its id, and where it was seen is remembered. A miss joins the look that runs. When none has seen the domain, one
more is begun, for another host may have made the domain on storage that was connected here before: all misses
that come before it begins share it. A look has a deadline, and storage that was silent at the last one is given a
moment only: it is looked at beside, and counts again when it has answered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from storage.domain import Domain
from storage.new_domain import NewDomain
from vdsm.common.mountinfo import mount_points
from vdsm.common.types import Json


@dataclass(frozen=True)
class MountedPlace:
    mount: str
    """``<repository>/mnt/<transformed remote path>``."""

    @property
    def is_connected(self) -> bool:
        """True for a mount point, or the link of a local folder. What is mounted is not touched: it may hang."""
        return self.mount in mount_points() or os.path.islink(self.mount)


Place = MountedPlace

Places = Callable[[Iterable[str]], Mapping[str, str]]
"""What hangs as one with each domain (`DomainSource.hang_with`)."""


class DomainSource(Protocol):
    async def find(self, domain_id: str) -> Place:
        """Where it is, as soon as that storage answers. Raises `DomainNotFound`, which names what did not answer."""

    async def open(self, place: Place, domain_id: str) -> Domain:
        """Raises `DomainNotFound` when it is not there, or what its metadata is refused for."""

    async def look_at(self, place: Place) -> None:
        """What the place holds is known then, if it answers; what can't be read is told to who asks by the id."""

    def seen(self) -> Mapping[str, Place]:
        """Every domain that a look has found, and where. From memory."""

    def seen_at(self, place: Place) -> list[str]: ...
    async def leave(self, place: Place) -> None:
        """It is about to go: nothing of it is known any more, nothing of ours reads it."""

    async def all(self) -> Mapping[str, Place]:
        """Every domain on storage that answers."""

    def known(self, domain_ids: Iterable[str]) -> dict[str, Json]:
        """Where these were seen, for another process: a hint that saves it the look."""

    def hang_with(self, domain_ids: Iterable[str]) -> dict[str, str]:
        """What hangs as one with each of these that was seen: the name of its place in `vdsm.common.hanging`."""

    def learn(self, known: Mapping[str, Json]) -> None:
        """What `known` said there."""

    def forget(self, domain_id: str) -> None:
        """It is not where it was seen."""

    # Domains that come and go

    async def create(self, wanted: NewDomain) -> None:
        """Make the domain; it is found once it is whole. One at a time on one storage.

        Raises `NotConnected`, `DomainExists`, and what the storage refuses before anything is written.
        """

    async def finish_format(self, domain_id: str) -> bool:
        """Remove what a format that was cut off left of it; False when nothing did. Raises `FormatCutOff`."""

    async def close(self) -> None: ...

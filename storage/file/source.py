# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains on mounted folders: `storage.source.DomainSource`, and how they come and go there.

A look at a mount has a deadline of `SEARCH_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Mapping

from storage.domain import Domain
from storage.edges import LeasesOf
from storage.errors import DomainExists, DomainNotFound, NotConnected, StorageError
from storage.file.domain import (
    create_file_domain,
    find_file_domains,
    finish_format,
    is_half_formatted,
    open_file_domain,
)
from storage.file.io import FileIo
from storage.file.iopool import IoPools
from storage.looks import Looks
from storage.new_domain import NewDomain
from storage.ondisk.remote_path import mount_name
from storage.source import MountedPlace
from vdsm.common.errors import AgentError
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.domains")

SEARCH_S = 10.0
OTHER_MOUNTS = frozenset({"blockSD", "glusterSD"})


class MountedFolders:
    def __init__(self, mounts: str, leases_of: LeasesOf, pools: IoPools, *, io_timeout_s: int) -> None:
        """``mounts``: ``<repository>/mnt``; whatever lies in it is connected."""
        self._mounts = mounts
        self.leases_of = leases_of
        self._pools = pools
        self._io_timeout_s = io_timeout_s
        self._places: dict[str, str] = {}
        self._looks = Looks(self._look)
        self._creating: dict[str, asyncio.Lock] = {}

    # As a source

    async def find(self, domain_id: str) -> MountedPlace:
        mount = self._places.get(domain_id)
        if mount is None:
            mount, silent = await self._looks.search(self._all_mounts(), domain_id)
            if mount is None:
                unless = f" that answers; {', '.join(silent)} did not" if silent else ""
                raise DomainNotFound(domain_id, unless)
        return MountedPlace(mount)

    async def open(self, place: MountedPlace, domain_id: str) -> Domain:
        io = FileIo(os.path.join(place.mount, domain_id), mount=place.mount, pools=self._pools)
        try:
            return await open_file_domain(place.mount, domain_id, io, self.leases_of, io_timeout_s=self._io_timeout_s)
        except BaseException:
            await io.close()
            raise

    async def look_at(self, place: MountedPlace) -> None:
        with contextlib.suppress(AgentError):  # told by the look
            await self._looks.fresh(place.mount)

    def seen(self) -> dict[str, MountedPlace]:
        return {domain_id: MountedPlace(mount) for domain_id, mount in self._places.items()}

    def seen_at(self, place: MountedPlace) -> list[str]:
        return [domain_id for domain_id, mount in self._places.items() if mount == place.mount]

    async def leave(self, place: MountedPlace) -> None:
        for domain_id in self.seen_at(place):
            self.forget(domain_id)
        self._looks.forget(place.mount)
        await self._pools.end(place.mount)

    async def all(self) -> dict[str, MountedPlace]:
        await asyncio.gather(*(self.look_at(MountedPlace(mount)) for mount in self._all_mounts()))
        return self.seen()

    def known(self, domain_ids: Iterable[str]) -> dict[str, Json]:
        return {domain_id: {"mount": self._places[domain_id]} for domain_id in domain_ids if domain_id in self._places}

    def hang_with(self, domain_ids: Iterable[str]) -> dict[str, str]:
        return {domain_id: self._places[domain_id] for domain_id in domain_ids if domain_id in self._places}

    def learn(self, known: Mapping[str, Json]) -> None:
        for domain_id, place in known.items():
            assert isinstance(place, dict)
            self._places[domain_id] = str(place["mount"])

    def forget(self, domain_id: str) -> None:
        self._places.pop(domain_id, None)

    async def close(self) -> None:
        await self._looks.close()

    # Domains that come and go

    async def create(self, wanted: NewDomain) -> None:
        """Raises what `create_file_domain` does, too."""
        mount = os.path.join(self._mounts, mount_name(wanted.spec))
        if not MountedPlace(mount).is_connected:
            raise NotConnected(wanted.spec)
        # what another creation has made so far looks like the rest of one that died, which is removed
        async with self._creating.setdefault(mount, asyncio.Lock()):
            await self._create(wanted, mount)

    async def _create(self, wanted: NewDomain, mount: str) -> None:
        domain_id, leases = wanted.domain_id, self.leases_of(wanted.kind)
        for other in await self._looks.fresh(mount):
            raise DomainExists(other, mount)
        io = FileIo(os.path.join(mount, domain_id), mount=mount, pools=self._pools)
        try:
            created = await create_file_domain(wanted, mount, io, leases, io_timeout_s=self._io_timeout_s)
            await created.close()
        finally:
            await io.close()
        self._places[domain_id] = mount

    async def finish_format(self, domain_id: str) -> bool:
        mounts = self._all_mounts()
        rests = await asyncio.gather(*(self._has_rest(mount, domain_id) for mount in mounts))
        for mount, has_rest in zip(mounts, rests, strict=True):
            if has_rest:
                await finish_format(mount, domain_id, self._pools)
                return True
        return False

    def _all_mounts(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            names = [n for n in os.listdir(self._mounts) if n not in OTHER_MOUNTS and not n.startswith(".")]
            return [os.path.join(self._mounts, name) for name in sorted(names)]
        return []

    async def _look(self, mount: str) -> list[str]:
        io = FileIo(mount, timeout_s=SEARCH_S, pools=self._pools)
        try:
            found = await find_file_domains(mount, io)
        finally:
            await io.close()
        self._places.update(dict.fromkeys(found, mount))
        return found

    async def _has_rest(self, mount: str, domain_id: str) -> bool:
        """A mount that is away has none: the error that says so is the one of the search before."""
        try:
            return await is_half_formatted(mount, domain_id, self._pools, timeout_s=SEARCH_S)
        except StorageError as e:
            log.warning("%s was not searched for what is left of domain %s: %s", mount, domain_id, e)
            return False

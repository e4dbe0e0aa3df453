# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains by id: found on the mounts of this host, opened once, shared by all flows of a process.

A search asks each mount by itself, all at the same time, each with a deadline of
`SEARCH_S`: a dead mount delays the search for what is elsewhere by nothing. Who searches or opens while the same is
under way joins that (`Flights`). Where a domain was found is remembered until it is not there any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable

from storage.domain import Domain
from storage.edges import LeasesOf
from storage.errors import DomainNotFound, StorageError
from storage.file.domain import find_file_domains, open_file_domain
from storage.file.io import FileIo
from storage.file.iopool import IoPools
from storage.flights import Flights
from storage.leases import Leases

SEARCH_S = 10.0
NOT_FILE_MOUNTS = frozenset({"blockSD", "glusterSD"})


class Domains:
    def __init__(self, mounts: str, leases_of: LeasesOf, pools: IoPools, *, io_timeout_s: int) -> None:
        self._mounts = mounts
        self.pools = pools
        self.leases_of = leases_of
        self._io_timeout_s = io_timeout_s
        self._places: dict[str, str] = {}
        self._opened: dict[str, Domain] = {}
        self._opening: Flights[Domain] = Flights()
        self._scans: Flights[list[str]] = Flights()

    def opened(self, domain_id: str) -> Domain | None:
        return self._opened.get(domain_id)

    async def get(self, domain_id: str) -> Domain:
        """The opened domain. Raises `DomainNotFound` or what its metadata is refused for."""
        opened = self._opened.get(domain_id)
        return opened or await self._opening.join(domain_id, lambda: self._open_to_keep(domain_id))

    @contextlib.asynccontextmanager
    async def look(self, domain_id: str) -> AsyncIterator[Domain]:
        """The domain for a moment: an open one keeps an I/O helper, which costs memory, so it is closed again."""
        opened = self._opened.get(domain_id)
        if opened is not None:
            yield opened
            return
        domain = await self._open(domain_id)
        try:
            yield domain
        finally:
            await domain.close()

    def leases(self, domain: Domain) -> Leases:
        return self.leases_of(domain.kind)

    async def with_leases(self, domain_id: str) -> tuple[Domain, Leases]:
        domain = await self.get(domain_id)
        return domain, self.leases(domain)

    def learn(self, places: dict[str, str]) -> None:
        """Mounts on which another process found domains: a hint that saves the search."""
        self._places.update(places)

    def places(self, domain_ids: Iterable[str]) -> dict[str, str]:
        """Where domains are known to be: domain id to mount."""
        return {domain_id: self._places[domain_id] for domain_id in domain_ids if domain_id in self._places}

    async def found(self) -> dict[str, str]:
        """All domains of all mounts that answer: domain id to mount."""
        await asyncio.gather(*(self._scan_quietly(mount) for mount in self.file_mounts()))
        return dict(self._places)

    async def scan(self, mount: str) -> list[str]:
        """Ids of the domains on a mount, as a scan finds them that may run already. Raises `StorageError`."""
        return await self._scans.join(mount, lambda: self.scan_anew(mount))

    async def scan_anew(self, mount: str) -> list[str]:
        """As `scan`, with all that was made before this call."""
        found = await self._domains_on(mount)
        self._places.update(dict.fromkeys(found, mount))
        return found

    async def forget(self, domain_id: str) -> None:
        """Close the domain, for instance since it was removed or its mount ends."""
        self._places.pop(domain_id, None)
        domain = self._opened.pop(domain_id, None)
        if domain is not None:
            await domain.close()

    async def forget_mount(self, mount: str) -> None:
        for domain_id in [d for d, place in self._places.items() if place == mount]:
            await self.forget(domain_id)
        await self.pools.end(mount)

    async def close(self) -> None:
        await asyncio.gather(self._opening.close(), self._scans.close())
        opened, self._opened = list(self._opened.values()), {}
        await asyncio.gather(*(domain.close() for domain in opened))

    async def _open_to_keep(self, domain_id: str) -> Domain:
        domain = await self._open(domain_id)
        if domain_id not in self._places:  # forgotten meanwhile: its mount may end any moment
            await domain.close()
            raise DomainNotFound(domain_id)
        self._opened[domain_id] = domain
        return domain

    async def _open(self, domain_id: str) -> Domain:
        mount = self._places.get(domain_id)
        if mount is not None:
            try:
                return await self._open_at(mount, domain_id)
            except DomainNotFound:
                self._places.pop(domain_id, None)
        return await self._open_at(await self._search(domain_id), domain_id)

    async def _open_at(self, mount: str, domain_id: str) -> Domain:
        io = FileIo(os.path.join(mount, domain_id), mount=mount, pools=self.pools)
        try:
            return await open_file_domain(mount, domain_id, io, self.leases_of, io_timeout_s=self._io_timeout_s)
        except BaseException:
            await io.close()
            raise

    async def _search(self, domain_id: str) -> str:
        """The mount that has it, as soon as that one answers. Raises `DomainNotFound`, which names the silent ones."""
        scans = {asyncio.ensure_future(self.scan(mount)): mount for mount in self.file_mounts()}
        waiting, silent = set(scans), []
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for scan in done:
                    if scan.exception() is not None:
                        silent.append(scans[scan])
                    elif domain_id in scan.result():
                        return scans[scan]
        finally:
            for scan in waiting:  # the scans themselves go on, for whoever asks next
                scan.cancel()
        raise DomainNotFound(domain_id, f" that answers; {', '.join(sorted(silent))} did not" if silent else "")

    async def _scan_quietly(self, mount: str) -> None:
        with contextlib.suppress(StorageError):  # what cannot be read is not offered; asking for it by id says why
            await self.scan(mount)

    def file_mounts(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            names = [n for n in os.listdir(self._mounts) if n not in NOT_FILE_MOUNTS and not n.startswith(".")]
            return [os.path.join(self._mounts, name) for name in sorted(names)]
        return []

    async def _domains_on(self, mount: str) -> list[str]:
        io = FileIo(mount, timeout_s=SEARCH_S, pools=self.pools)
        try:
            return await find_file_domains(mount, io)
        finally:
            await io.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains by id: found on the mounts of this host, opened once, shared by all flows of a process.

A search asks each mount in an I/O helper of its own, all at the same time, each with a deadline:
a dead mount delays the search for what is elsewhere by nothing, and the search for what is
nowhere by `SEARCH_S` at most. Where a domain was found is remembered until it stops answering there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterable

from storage.domain import Domain
from storage.errors import DomainNotFound, StorageError
from storage.file.domain import LeasesOf, find_file_domains, open_file_domain
from storage.file.io import FileIo
from storage.leases import Leases

log = logging.getLogger("vdsm.storage.domains")

SEARCH_S = 10.0
NOT_FILE_MOUNTS = frozenset({"blockSD", "glusterSD"})


class Domains:
    def __init__(self, mounts: str, leases_of: LeasesOf, *, io_timeout_s: int) -> None:
        self._mounts = mounts
        self.leases_of = leases_of
        self._io_timeout_s = io_timeout_s
        self._places: dict[str, str] = {}
        self._opened: dict[str, Domain] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    async def get(self, domain_id: str) -> Domain:
        """The opened domain. Raises `DomainNotFound` or what its metadata is refused for."""
        async with self._opening.setdefault(domain_id, asyncio.Lock()):
            if domain_id not in self._opened:
                self._opened[domain_id] = await self._open(domain_id)
            return self._opened[domain_id]

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
        async with _searches(self._file_mounts()) as searches:
            for mount, search in searches:
                with contextlib.suppress(StorageError):
                    self._places.update(dict.fromkeys(await search, mount))
        return dict(self._places)

    def is_open(self, domain_id: str) -> bool:
        return domain_id in self._opened

    async def close_one(self, domain_id: str) -> None:
        """End its I/O helper; where it is stays known."""
        domain = self._opened.pop(domain_id, None)
        if domain is not None:
            await domain.close()

    async def forget(self, domain_id: str) -> None:
        """Close the domain, for instance since it was removed or its mount ends."""
        self._places.pop(domain_id, None)
        await self.close_one(domain_id)

    async def forget_mount(self, mount: str) -> None:
        for domain_id in [d for d, place in self._places.items() if place == mount]:
            await self.forget(domain_id)

    async def close(self) -> None:
        opened, self._opened = list(self._opened.values()), {}
        await asyncio.gather(*(domain.close() for domain in opened))

    async def _open(self, domain_id: str) -> Domain:
        mount = self._places.get(domain_id)
        if mount is not None:
            try:
                return await self._open_at(mount, domain_id)
            except DomainNotFound:
                del self._places[domain_id]
        mount = self._places[domain_id] = await self._search(domain_id)
        return await self._open_at(mount, domain_id)

    async def _open_at(self, mount: str, domain_id: str) -> Domain:
        io = FileIo(os.path.join(mount, domain_id), mount=mount)
        try:
            return await open_file_domain(mount, domain_id, io, self.leases_of, io_timeout_s=self._io_timeout_s)
        except BaseException:
            await io.close()
            raise

    async def _search(self, domain_id: str) -> str:
        async with _searches(self._file_mounts()) as searches:
            by_task = {search: mount for mount, search in searches}
            waiting = set(by_task)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for search in done:
                    if search.exception() is None and domain_id in search.result():
                        return by_task[search]
        raise DomainNotFound(domain_id)

    def _file_mounts(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            names = [n for n in os.listdir(self._mounts) if n not in NOT_FILE_MOUNTS and not n.startswith(".")]
            return [os.path.join(self._mounts, name) for name in sorted(names)]
        return []


async def domains_on(mount: str) -> list[str]:
    """Ids of the domains on a mount. Raises `StorageError`."""
    io = FileIo(mount, timeout_s=SEARCH_S)
    try:
        return await find_file_domains(mount, io)
    finally:
        await io.close()


@contextlib.asynccontextmanager
async def _searches(mounts: list[str]) -> AsyncIterator[list[tuple[str, asyncio.Task[list[str]]]]]:
    tasks = [(mount, asyncio.ensure_future(domains_on(mount))) for mount in mounts]
    try:
        yield tasks
    finally:
        for _, task in tasks:
            task.cancel()
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)

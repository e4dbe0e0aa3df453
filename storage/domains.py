# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains by id: found and opened once, shared by all flows of a process.

Who opens a domain while the same is under way joins that (`Flights`). Where it is found: see `storage.source`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from storage.domain import Domain
from storage.errors import DomainNotFound
from storage.flights import Flights
from storage.leases import Leases
from storage.source import DomainSource, Place


class Domains:
    def __init__(self, source: DomainSource) -> None:
        self.source = source
        self._opened: dict[str, Domain] = {}
        self._opening: Flights[Domain] = Flights()
        self._wanted: set[str] = set()

    def opened(self, domain_id: str) -> Domain | None:
        return self._opened.get(domain_id)

    async def get(self, domain_id: str) -> Domain:
        """The opened domain. Raises `DomainNotFound` or what its metadata is refused for."""
        opened = self._opened.get(domain_id)
        return opened or await self._opening.join(domain_id, lambda: self._open_to_keep(domain_id))

    @contextlib.asynccontextmanager
    async def look(self, domain_id: str) -> AsyncIterator[Domain]:
        """The domain for a moment: what reads it costs memory, so one that nobody uses is closed again."""
        opened = self._opened.get(domain_id)
        if opened is not None:
            yield opened
            return
        domain = await self._open(domain_id)
        try:
            yield domain
        finally:
            await domain.close()

    async def with_leases(self, domain_id: str) -> tuple[Domain, Leases]:
        domain = await self.get(domain_id)
        return domain, domain.leases

    async def forget(self, domain_id: str) -> None:
        """Close the domain, for instance since it was removed or its storage ends."""
        self.source.forget(domain_id)
        self._wanted.discard(domain_id)
        domain = self._opened.pop(domain_id, None)
        if domain is not None:
            await domain.close()

    async def connected(self, place: Place) -> None:
        """Storage came: what it holds is known then, if it answers."""
        await self.source.look_at(place)

    async def leave(self, place: Place) -> None:
        """Storage is about to go: its domains are closed and forgotten."""
        for domain_id in self.source.seen_at(place):
            await self.forget(domain_id)
        await self.source.leave(place)

    async def close(self) -> None:
        await asyncio.gather(self._opening.close(), self.source.close())
        opened, self._opened = list(self._opened.values()), {}
        await asyncio.gather(*(domain.close() for domain in opened))

    async def _open_to_keep(self, domain_id: str) -> Domain:
        self._wanted.add(domain_id)
        domain = await self._open(domain_id)
        if domain_id not in self._wanted:  # forgotten meanwhile: its storage may end any moment
            await domain.close()
            raise DomainNotFound(domain_id)
        self._opened[domain_id] = domain
        return domain

    async def _open(self, domain_id: str) -> Domain:
        place = await self.source.find(domain_id)
        try:
            return await self.source.open(place, domain_id)
        except DomainNotFound:
            self.source.forget(domain_id)
        return await self.source.open(await self.source.find(domain_id), domain_id)

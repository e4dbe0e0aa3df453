# SPDX-License-Identifier: GPL-2.0-or-later
"""`storage.source.DomainSource` in memory: places that hold domains, and note when they are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from memory_domain import MemoryDomain, MemoryStorage

from storage.domain import Domain
from storage.errors import DomainNotFound, NotConnected
from storage.new_domain import NewDomain
from storage.source import MountedPlace, Place
from vdsm.common.types import Json


class MemorySource:
    def __init__(self, *domains: Domain) -> None:
        """``domains`` lie in one place."""
        self.place = MountedPlace("/memory")
        self.places: dict[Place, dict[str, Domain]] = {self.place: {d.domain_id: d for d in domains}}
        self.looked: list[Place] = []
        self._seen: dict[str, Place] = {}

    async def find(self, domain_id: str) -> Place:
        seen = self._seen.get(domain_id)
        if seen is not None:
            return seen
        for place, domains in self.places.items():
            if domain_id in domains and not _is_gone(domains[domain_id]):
                self._seen[domain_id] = place
                return place
        raise DomainNotFound(domain_id)

    async def open(self, place: Place, domain_id: str) -> Domain:
        domain = self.places.get(place, {}).get(domain_id)
        if domain is None or _is_gone(domain):
            raise DomainNotFound(domain_id)
        return domain

    async def look_at(self, place: Place) -> None:
        self.looked.append(place)
        self._seen |= dict.fromkeys(self.places.get(place, {}), place)

    def seen(self) -> Mapping[str, Place]:
        return dict(self._seen)

    def seen_at(self, place: Place) -> list[str]:
        return [domain_id for domain_id, seen in self._seen.items() if seen == place]

    async def leave(self, place: Place) -> None:
        for domain_id in self.seen_at(place):
            self.forget(domain_id)

    async def all(self) -> Mapping[str, Place]:
        return {domain_id: place for place, domains in self.places.items() for domain_id in domains}

    def known(self, domain_ids: Iterable[str]) -> dict[str, Json]:
        return {
            domain_id: {"mount": self._seen[domain_id].mount} for domain_id in domain_ids if domain_id in self._seen
        }

    def hang_with(self, domain_ids: Iterable[str]) -> dict[str, str]:
        return {domain_id: self._seen[domain_id].mount for domain_id in domain_ids if domain_id in self._seen}

    def learn(self, known: Mapping[str, Json]) -> None:
        for domain_id, place in known.items():
            assert isinstance(place, dict)
            self._seen[domain_id] = MountedPlace(str(place["mount"]))

    def forget(self, domain_id: str) -> None:
        self._seen.pop(domain_id, None)

    async def create(self, wanted: NewDomain) -> None:
        """``spec`` is the name of a place."""
        place = MountedPlace(wanted.spec)
        if place not in self.places:
            raise NotConnected(wanted.spec)
        self.places[place][wanted.domain_id] = MemoryStorage(wanted.domain_id).open()

    async def finish_format(self, domain_id: str) -> bool:
        """Nothing cuts one off."""
        return False

    async def close(self) -> None:
        return


def _is_gone(domain: Domain) -> bool:
    return isinstance(domain, MemoryDomain) and domain.storage.gone

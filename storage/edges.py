# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lock a kind of domain has: flock on a local disk, sanlock for all that hosts may share."""

from __future__ import annotations

from collections.abc import Callable

from storage.leases import Leases
from storage.leases.flock_edge import FlockLeases
from storage.leases.kept import Kept
from storage.ondisk.values import DomainKind

LeasesOf = Callable[[DomainKind], Leases]
"""The lease edge for a kind of domain."""


def lease_edges(kept: Kept | None = None) -> LeasesOf:
    """One edge of each kind for this process; what they take is put into ``kept``.

    sanlock's binding is loaded when a domain first needs it.
    """
    flock: Leases = FlockLeases(kept)
    shared: list[Leases] = []

    def leases_of(kind: DomainKind) -> Leases:
        if kind is DomainKind.LOCALFS:
            return flock
        if not shared:
            from storage.leases.sanlock_edge import SanlockLeases

            shared.append(SanlockLeases(kept))
        return shared[0]

    return leases_of

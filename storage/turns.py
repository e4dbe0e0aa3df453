# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose turn it is with a domain as a whole: what this agent makes, formats, attaches, detaches or connects.

Tasks of the SPM process share the domain. A verb that changes to whom it belongs takes it alone before it asks that
process, and lends it what it holds: a domain is not removed by one verb while another one hands it to a pool, and no
task runs on one that comes or goes. Who does not get its turn within `WAIT_S` is refused with the name of what has it.

Order: these first, then the pool's lane, then a mount's.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from storage import locks
from storage.lock_table import Grant, Locks
from storage.locks import Mode

WAIT_S = 60.0


class DomainTurns:
    def __init__(self, held: Locks) -> None:
        self._locks = held

    def alone(self, domain_ids: Iterable[str], who: str) -> AbstractAsyncContextManager[Grant]:
        """For what changes to whom the domains belong, or whether they are. Raises `LockTimeout`."""
        return self._hold(domain_ids, Mode.EXCLUSIVE, who)

    def used(self, domain_ids: Iterable[str], who: str) -> AbstractAsyncContextManager[Grant]:
        """For what relies on both. Raises `LockTimeout`."""
        return self._hold(domain_ids, Mode.SHARED, who)

    def _hold(self, domain_ids: Iterable[str], mode: Mode, who: str) -> AbstractAsyncContextManager[Grant]:
        return self._locks.hold([locks.domain(domain_id, mode) for domain_id in domain_ids], who=who, wait_s=WAIT_S)

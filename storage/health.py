# SPDX-License-Identifier: GPL-2.0-or-later
"""What a look at a domain's storage means: said by its cause, where the kernel names one.

A data domain that can't be written is bad, however well it is read: its VMs are about to stop. One that is full is not:
what it holds is used as before. So that is told beside.

Whether writing is refused is asked of the server (`storage.file.iohelper.rights`), without a write.
"""

from __future__ import annotations

from collections.abc import Mapping

from storage.domain import Space
from storage.errors import AccessLost, IoFailed, NotWritable, StorageReplaced
from storage.ondisk.values import DomainClass
from vdsm.common.errors import AgentError

_CAUSES: Mapping[str, type[AccessLost] | type[StorageReplaced]] = {
    "EACCES": AccessLost,
    "EPERM": AccessLost,
    "ESTALE": StorageReplaced,
}


def by_cause(domain_id: str, error: AgentError) -> AgentError:
    """The error of a look, by its cause; itself where that is not known."""
    cause = _CAUSES.get(error.error) if isinstance(error, IoFailed) else None
    return error if cause is None else cause(domain_id, str(error))


def not_writable(domain_id: str, domain_class: DomainClass, space: Space) -> NotWritable | None:
    """Of a data domain; the others are made to be read."""
    if domain_class is not DomainClass.DATA or not space.write_refused:
        return None
    return NotWritable(domain_id, space.write_refused)


def full(domain_id: str, space: Space | None) -> str:
    """A sentence when nothing is free any more, else empty."""
    return f"The storage of domain {domain_id} is full" if space is not None and space.free <= 0 else ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Wire forms that several storage namespaces share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.errors import DiscardUnsupported, DomainClassUnknown
from storage.ondisk.values import Allocation, DomainClass, DomainKind, DomainStatus, VolumeFormat
from vdsm.common.errors import InvalidParameter

_CLASSES = {1: DomainClass.DATA, 2: DomainClass.ISO, 3: DomainClass.BACKUP}


def kind_of(name: str, number: int) -> DomainKind:
    try:
        return DomainKind.from_number(number)
    except ValueError:
        raise InvalidParameter(name, str(number), "expected a storage type: 1, 2, 3, 4, 6 or 7") from None


def class_of(number: int) -> DomainClass:
    """Raises `DomainClassUnknown` (386, as the field)."""
    if number not in _CLASSES:
        raise DomainClassUnknown(number)
    return _CLASSES[number]


def format_of(name: str, number: int) -> VolumeFormat:
    for known in VolumeFormat:
        if known.number == number:
            return known
    raise InvalidParameter(name, str(number), "expected 4 (COW) or 5 (RAW)")


def allocation_of(name: str, number: int) -> Allocation:
    for known in Allocation:
        if known.number == number:
            return known
    raise InvalidParameter(name, str(number), "expected 1 (preallocated) or 2 (sparse)")


def domain_map(name: str, statuses: Mapping[str, str]) -> dict[str, DomainStatus]:
    """The engine's map of a pool's domains: id to ``active`` or ``attached`` in any case."""
    known = {status.value.lower(): status for status in DomainStatus}
    for domain_id, text in statuses.items():
        if text.lower() not in known:
            raise InvalidParameter(f"{name}.{domain_id}", text[:40], "expected active or attached")
    return {domain_id: known[text.lower()] for domain_id, text in statuses.items()}


def bytes_text(stats: Any) -> dict[str, str]:
    """Total and free space as engines read them: decimal text."""
    return {"disktotal": str(stats.total), "diskfree": str(stats.free)}


def check_range(name: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise InvalidParameter(name, str(number), f"expected {low} to {high}")


def refuse_discard(domain_id: str, wanted: bool) -> None:
    """No kind of domain that is built can (349, as the field)."""
    if wanted:
        raise DiscardUnsupported(domain_id)

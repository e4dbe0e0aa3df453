# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases: `Leases` is the Protocol, `SanlockLeases` and `FlockLeases` are its edges."""

from storage.leases.model import (
    Holder,
    HostIdOwner,
    HostRecord,
    HostStatus,
    Lease,
    LeaseOwner,
    LeaseRecord,
    Leases,
    Lockspace,
    Membership,
)

__all__ = [
    "Holder",
    "HostIdOwner",
    "HostRecord",
    "HostStatus",
    "Lease",
    "LeaseOwner",
    "LeaseRecord",
    "Leases",
    "Lockspace",
    "Membership",
]

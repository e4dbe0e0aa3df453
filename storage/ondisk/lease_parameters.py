# SPDX-License-Identifier: GPL-2.0-or-later
"""Timing of the lock that domains had before sanlock, in the metadata of whatever became a master (storage.md 5.1).

Nobody goes by it; engines of the field pass it and its hosts write it, so a domain of ours reads like one of theirs.
"""

from __future__ import annotations

DEFAULTS = {
    "LOCKPOLICY": "ON",
    "LOCKRENEWALINTERVALSEC": "5",
    "LEASETIMESEC": "60",
    "IOOPTIMEOUTSEC": "10",
    "LEASERETRIES": "3",
}


def fields(renewal_s: int | None, lease_s: int | None, io_timeout_s: int | None, retries: int | None) -> dict[str, str]:
    """The lines of a domain that becomes a master; the defaults, and a policy, where any parameter is missing or 0."""
    given = {
        "LOCKRENEWALINTERVALSEC": renewal_s,
        "LEASETIMESEC": lease_s,
        "IOOPTIMEOUTSEC": io_timeout_s,
        "LEASERETRIES": retries,
    }
    if not all(given.values()):
        return dict(DEFAULTS)
    return {key: str(value) for key, value in given.items()}


COPIED = frozenset(DEFAULTS) - {"LOCKPOLICY"}
"""What a domain takes over from the master that it follows (storage.md 10.7)."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""From one format version of a data domain to a later one: which steps, in which order (storage.md 7).

Each step leaves a domain that hosts can read at one version, its own or the next, so a conversion that was cut off
anywhere is begun again by whoever is SPM next. What a version states twice for a while (a volume's capacity, while
the domain becomes V5) says the same both times. Only the holder of the SDM lease converts, alone on the domain.
"""

from __future__ import annotations

from enum import StrEnum

from storage.errors import StorageError
from storage.ondisk.values import DomainClass, FormatVersion
from vdsm.common.crashpoints import crash_point

LEASES_MADE = crash_point("domain.convert.leases", "external leases have their index, the version is the old one")
VERSION_4 = crash_point("domain.convert.v4", "the domain has version 4")
BOTH_STATED = crash_point("domain.convert.both", "volumes state their capacity in both ways, the version is 4")
VERSION_5 = crash_point("domain.convert.v5", "the domain has version 5, volumes state their capacity in both ways")
DONE = crash_point("domain.convert.done", "all is as of version 5")


class ConversionUnsupported(StorageError):
    domain_id: str
    found: int
    wanted: int
    msg = "Storage domain {self.domain_id} of version {self.found} cannot be converted to version {self.wanted}"


class Step(StrEnum):
    EXTERNAL_LEASES = "external leases"
    """A place for them with an empty index, whatever an earlier conversion left there."""
    VERSION_4 = "version 4"
    BOTH_CAPACITIES = "both capacities"
    """Each volume states its capacity in bytes too. One that cannot be read stays as it is."""
    VERSION_5 = "version 5"
    """Block size and alignment are stated with it, in one change."""
    ONE_CAPACITY = "one capacity"
    """Tidying: what is left of it is as readable, and goes with the next change of a volume."""


TO_4 = (Step.EXTERNAL_LEASES, Step.VERSION_4)
TO_5 = (Step.BOTH_CAPACITIES, Step.VERSION_5, Step.ONE_CAPACITY)

_STEPS = {
    (FormatVersion.V3, FormatVersion.V4): TO_4,
    (FormatVersion.V3, FormatVersion.V5): TO_4 + TO_5,
    (FormatVersion.V4, FormatVersion.V5): TO_5,
}


def plan(domain_id: str, domain_class: DomainClass, found: FormatVersion, wanted: int) -> tuple[Step, ...]:
    """The steps; none when there is nothing to do. Raises `ConversionUnsupported`."""
    if found == wanted:
        return ()
    if domain_class is not DomainClass.DATA or (found, wanted) not in _STEPS:
        raise ConversionUnsupported(domain_id, int(found), wanted)
    return _STEPS[found, FormatVersion(wanted)]

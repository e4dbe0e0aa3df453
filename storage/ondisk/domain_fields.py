# SPDX-License-Identifier: GPL-2.0-or-later
"""Domain metadata with types: what the agent reads and changes of the ``KEY=VALUE`` lines.

`DomainMetadata` wraps the lines: unknown keys and untouched values stay byte for byte. Values that are changed must
fit on a line for every reader; those that were there already are never refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.errors import (
    DescriptionTooLong,
    DomainNameTooLong,
    InvalidContent,
    NameNotAscii,
    PoolNameTooLong,
    UnsupportedVersion,
)
from storage.ondisk import description as description_rules
from storage.ondisk import domain_metadata
from storage.ondisk.layout import BLOCK_SIZE_512
from storage.ondisk.values import DomainClass, DomainKind, DomainRole, DomainStatus, FormatVersion
from vdsm.common.ids import BLANK_UUID, is_uuid
from vdsm.common.units import MiB

MAX_DESCRIPTION_CHARACTERS = 50
MAX_DESCRIPTION_BYTES = 200
MAX_NUMBER = 1 << 62

_LEASE_PARAMETERS = {
    "LOCKPOLICY": "",
    "LOCKRENEWALINTERVALSEC": "5",
    "LEASETIMESEC": "60",
    "IOOPTIMEOUTSEC": "10",
    "LEASERETRIES": "3",
}


@dataclass(frozen=True)
class DomainMetadata:
    fields: Mapping[str, str]
    where: str = field(default="domain metadata", compare=False)

    # Identity, fixed at creation

    @property
    def version(self) -> FormatVersion:
        text = self._text("VERSION")
        try:
            return FormatVersion(int(text))
        except ValueError:
            raise UnsupportedVersion(self.where, text[:40]) from None

    @property
    def domain_id(self) -> str:
        text = self._text("SDUUID").strip()
        if not is_uuid(text):
            raise InvalidContent(self.where, f"SDUUID is no UUID: {text[:80]!r}")
        return text

    @property
    def kind(self) -> DomainKind:
        return DomainKind(self._one_of("TYPE", DomainKind))

    @property
    def domain_class(self) -> DomainClass:
        return DomainClass(self._one_of("CLASS", DomainClass))

    @property
    def remote_path(self) -> str:
        return self.fields.get("REMOTE_PATH", "")

    @property
    def block_size(self) -> int:
        """Bytes; formats before V5 always have 512."""
        return self._number("BLOCK_SIZE", 512, allowed=(512, 4096))

    @property
    def alignment(self) -> int:
        """Bytes that one lease takes; formats before V5 always have 1 MiB."""
        return self._number("ALIGNMENT", MiB, allowed=(MiB, 2 * MiB, 4 * MiB, 8 * MiB))

    def check_geometry(self) -> None:
        """Where leases lie follows from it: what no version writes is refused.

        Raises `InvalidContent`; `UnsupportedVersion` for data under the lock of old, which is not built.
        """
        if not self.version.has_leases and self.domain_class is DomainClass.DATA:
            raise UnsupportedVersion(self.where, str(int(self.version)))
        found = (self.block_size, self.alignment)
        if found != (BLOCK_SIZE_512, MiB) and (self.version < FormatVersion.V5 or self.block_size == BLOCK_SIZE_512):
            raise InvalidContent(
                self.where, f"version {int(self.version)} has no block size {found[0]} with alignment {found[1]}"
            )

    # What pool operations change

    @property
    def role(self) -> DomainRole:
        return DomainRole(self._one_of("ROLE", DomainRole))

    @property
    def description(self) -> str:
        return self.fields.get("DESCRIPTION", "")

    @property
    def pools(self) -> list[str]:
        """Ids of the pools that the domain is attached to; the blank id of old domains means none."""
        pools = (p.strip() for p in self.fields.get("POOL_UUID", "").split(","))
        return [p for p in pools if p and p != BLANK_UUID]

    # On the master only

    @property
    def master_version(self) -> int:
        return self._number("MASTER_VERSION", 0)

    @property
    def pool_description(self) -> str:
        return self.fields.get("POOL_DESCRIPTION", "")

    @property
    def pool_domains(self) -> dict[str, DomainStatus]:
        """Domains of the pool with their state. The legacy state ``Inactive`` reads as attached."""
        result = {}
        for item in self.fields.get("POOL_DOMAINS", "").split(","):
            if not item.strip():
                continue
            domain_id, _, status = (part.strip(" '") for part in item.partition(":"))
            if not is_uuid(domain_id):
                raise InvalidContent(self.where, f"POOL_DOMAINS holds {item[:80]!r}")
            status = status.capitalize()
            try:
                result[domain_id] = DomainStatus("Attached" if status == "Inactive" else status)
            except ValueError:
                raise InvalidContent(self.where, f"POOL_DOMAINS holds {item[:80]!r}") from None
        return result

    @property
    def spm_id(self) -> int:
        return self._number("POOL_SPM_ID", -1)

    @property
    def spm_lver(self) -> int:
        return self._number("POOL_SPM_LVER", -1)

    def with_fields(self, changes: Mapping[str, str | None]) -> DomainMetadata:
        """The metadata with these lines changed; None removes one. No other line changes. Raises `InvalidContent`."""
        fields = dict(self.fields)
        for key, value in changes.items():
            if value is None:
                fields.pop(key, None)
            else:
                fields[key] = _one_line(key, value)
        return DomainMetadata(fields, self.where)

    def _text(self, key: str) -> str:
        if key not in self.fields:
            raise InvalidContent(self.where, f"the key {key} is missing")
        return self.fields[key]

    def _one_of(self, key: str, values: type[DomainKind | DomainClass | DomainRole]) -> str:
        text = self._text(key).strip()
        if text not in list(values):
            raise InvalidContent(self.where, f"{key} is {text[:80]!r}")
        return text

    def _number(self, key: str, default: int, allowed: tuple[int, ...] = ()) -> int:
        text = self.fields.get(key, "").strip()
        if text == "":
            return default
        try:
            number = int(text) if len(text) <= 20 and text.isascii() else MAX_NUMBER + 1
        except ValueError:
            number = MAX_NUMBER + 1
        if number > MAX_NUMBER or (allowed and number not in allowed):
            raise InvalidContent(self.where, f"{key} is {text[:80]!r}")
        return number


def decode(data: bytes, where: str) -> DomainMetadata:
    """Raises `ChecksumMismatch`, `InvalidContent`, `ContentTooLong`."""
    return DomainMetadata(domain_metadata.decode(data, where), where)


def encode(metadata: DomainMetadata) -> bytes:
    return domain_metadata.encode(metadata.fields)


def new_file_domain(
    *,
    domain_id: str,
    kind: DomainKind,
    version: FormatVersion,
    description: str,
    remote_path: str,
    block_size: int,
    alignment: int,
    domain_class: DomainClass = DomainClass.DATA,
) -> DomainMetadata:
    """Metadata of a new file domain. Raises `DomainNameTooLong`, `InvalidContent`, `NameNotAscii`."""
    made = DomainMetadata(
        {
            **(geometry_fields(block_size, alignment) if version.states_geometry else {}),
            "CLASS": domain_class.value,
            "DESCRIPTION": check_name(description, version),
            **_LEASE_PARAMETERS,
            "POOL_UUID": "",
            "REMOTE_PATH": _one_line("REMOTE_PATH", remote_path),
            "ROLE": DomainRole.REGULAR.value,
            "SDUUID": domain_id,
            "TYPE": kind.value,
            "VERSION": str(int(version)),
        }
    )
    made.check_geometry()
    return made


def geometry_fields(block_size: int, alignment: int) -> dict[str, str]:
    """Bytes of a block and of the room of one lease, as V5 states them."""
    return {"ALIGNMENT": str(alignment), "BLOCK_SIZE": str(block_size)}


def master_fields(
    *,
    pool_id: str,
    pool_description: str,
    domains: Mapping[str, DomainStatus],
    master_version: int,
    spm_id: int = -1,
    spm_lver: int = -1,
) -> dict[str, str]:
    """The lines that make a domain the master of a pool, for `DomainMetadata.with_fields`."""
    return {
        "ROLE": DomainRole.MASTER.value,
        "POOL_UUID": pool_id,
        "POOL_DESCRIPTION": _check_length(pool_description, PoolNameTooLong),
        "POOL_DOMAINS": encode_pool_domains(domains),
        "POOL_SPM_ID": str(spm_id),
        "POOL_SPM_LVER": str(spm_lver),
        "MASTER_VERSION": str(master_version),
    }


def _one_line(key: str, value: str) -> str:
    if not description_rules.fits_line(value):
        raise InvalidContent("domain metadata", f"the value of {key} holds a line break or NUL: {value[:80]!r}")
    return value


def encode_pool_domains(domains: Mapping[str, DomainStatus]) -> str:
    return ",".join(f"{domain_id}:{status.value}" for domain_id, status in domains.items())


def check_name(text: str, version: FormatVersion) -> str:
    """The name of a domain: at most 50 characters, in V0 of ASCII only.

    Raises `DomainNameTooLong`, `NameNotAscii`, `InvalidContent`.
    """
    if version < FormatVersion.V3 and not text.isascii():
        raise NameNotAscii(text)
    return _check_length(text, DomainNameTooLong)


def _check_length(text: str, too_long: type[DescriptionTooLong]) -> str:
    return description_rules.check(text, MAX_DESCRIPTION_CHARACTERS, MAX_DESCRIPTION_BYTES, too_long)

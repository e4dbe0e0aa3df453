# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab's own certificate authority: hosts and engine get certificates that only this lab trusts.

A host's pair serves it as server and as client (it calls other hosts in migrations). The authority's key never enters
a host, and never a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vdsm.certificates import making

# long enough that hosts do not tell of their end
DAYS = 60
# where a host has its own, below /etc/pki/vdsm
HOST_FILES = {"ca": "certs/cacert.pem", "certificate": "certs/vdsmcert.pem", "key": "keys/vdsmkey.pem"}


@dataclass(frozen=True)
class Identity:
    ca: Path
    certificate: Path
    key: Path


class Authority:
    def __init__(self, folder: Path) -> None:
        """Make the authority; its certificate lies in that folder, which must exist."""
        self._folder = folder
        self._pair = making.authority("lab CA", DAYS)
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(self._pair.certificate)

    def issue(self, name: str, addresses: Sequence[str] = ()) -> Identity:
        """A new pair for that common name, also valid for the addresses."""
        pair = making.issue(self._pair, [name, *addresses], DAYS)
        key, certificate = self._folder / f"{name}.key", self._folder / f"{name}.pem"
        key.write_bytes(pair.key)
        key.chmod(0o600)
        certificate.write_bytes(pair.certificate)
        return Identity(self.certificate, certificate, key)

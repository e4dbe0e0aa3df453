# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab's own certificate authority: hosts and engine get certificates that only this lab trusts, valid for a day.

A host's pair serves it as server and as client (it calls other hosts in migrations). The authority's key never enters
a host.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
DAYS = "1"
# where a host has its own, below /etc/pki/vdsm
HOST_FILES = {"ca": "certs/cacert.pem", "certificate": "certs/vdsmcert.pem", "key": "keys/vdsmkey.pem"}


@dataclass(frozen=True)
class Identity:
    ca: Path
    certificate: Path
    key: Path


class Authority:
    def __init__(self, folder: Path) -> None:
        """Make the authority in that folder, which must exist."""
        self._folder = folder
        self._key = folder / "ca.key"
        self.certificate = folder / "ca.pem"
        _openssl(
            *("req", "-x509", *NEW_KEY, "-days", DAYS, "-subj", "/O=lab/CN=lab CA"),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def issue(self, name: str, addresses: Sequence[str] = ()) -> Identity:
        """A new pair for that common name, also valid for the addresses."""
        key, certificate = self._folder / f"{name}.key", self._folder / f"{name}.pem"
        names = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
        _openssl(
            *("req", "-x509", *NEW_KEY, "-days", DAYS, "-subj", f"/O=lab/CN={name}"),
            *("-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
            *("-keyout", str(key), "-out", str(certificate)),
        )
        return Identity(self.certificate, certificate, key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)

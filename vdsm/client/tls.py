# SPDX-License-Identifier: GPL-2.0-or-later
"""The caller's side of TLS: who we are, and whom we believe to be an agent."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from vdsm.certificates import places
from vdsm.client.errors import ClientError


class NoIdentity(ClientError):
    """The caller's own certificate can't be used."""

    file: str
    reason: str
    msg = "Can't use {self.file}: {self.reason}"
    remedy = "Run it as root or vdsm on a host that has certificates (vdsm cert status)"


@dataclass(frozen=True)
class Pair:
    """PEM files: the authority that agents are signed by, and the caller's own certificate and key."""

    authority: str
    certificate: str
    key: str


def context(pair: Pair) -> ssl.SSLContext:
    """TLS 1.2 and newer. Who is signed by the authority is believed, whatever its name: hosts are called by names that
    their certificates may lack, as by every client of the field (wire.md 1). Raises `NoIdentity`.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.check_hostname = False
    file = ""
    try:
        for file in (pair.authority, pair.certificate, pair.key):
            with open(file, "rb"):
                pass  # OpenSSL's own errors do not say which of the files it could not read
        file = pair.authority
        made.load_verify_locations(pair.authority)
        file = pair.certificate
        # a key with a passphrase is an error, not a question
        made.load_cert_chain(pair.certificate, pair.key, password="")
    except ssl.SSLError as e:
        raise NoIdentity(file, (e.reason or str(e)).replace("_", " ").lower()) from None
    except OSError as e:
        raise NoIdentity(file, e.strerror or str(e)) from None
    return made


def own(pki: str) -> Pair:
    """A host's own pair below its PKI folder: hosts call each other with it, and root calls its own host."""
    place = places.host(pki)
    return Pair(place.authority, place.certificate, place.key)

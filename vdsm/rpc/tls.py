# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's side of TLS: its pair, whom it trusts, and what a refused handshake was about.

The files are those of VDSM (wire.md 1). They are looked at again, at most once a second, when somebody connects: a new
pair is used from the next connection on, without restart; one that can't be loaded is reported once and the old one
kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
import time
from asyncio import sslproto
from dataclasses import dataclass

from vdsm.certificates.places import Place
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.rpc.tls")

LOOK_AGAIN_S = 1.0
# of asyncio's TLS, for each connection and for each read of it; a record of TLS has 16 KiB at most. With asyncio's own
# 256 KiB a read takes a block from the kernel and gives it back
BUFFER_BYTES = 32 << 10
sslproto.SSLProtocol.max_size = BUFFER_BYTES
# a context keeps 10 KiB for each session of TLS 1.2, up to 20480, and `ssl` has no switch for it
HANDSHAKES_OF_A_CONTEXT = 500
# what OpenSSL calls the errors of a peer's certificate (X509_V_ERR_...)
_NOT_YET_VALID, _EXPIRED = 9, 10
_FOREIGN = frozenset({2, 18, 19, 20, 21})
REFUSED_WITHOUT = "no client certificate"


class NoCertificates(AgentError):
    missing: str
    msg = "There is no {self.missing}"
    remedy = "Deploy the host from its engine; without one: vdsm cert init"


class BadCertificates(AgentError):
    file: str
    reason: str
    msg = "Certificate {self.file} can't be used: {self.reason}"
    remedy = "See what is wrong with it: vdsm cert status. User vdsm must be able to read it and its key"


class Certificates:
    """The context for the next connection."""

    def __init__(self, place: Place, ciphers: str = "") -> None:
        self._place = place
        self._ciphers = ciphers
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[object, ...] = ()
        self._looked = -LOOK_AGAIN_S
        self._handshakes = 0

    def context(self) -> ssl.SSLContext:
        """Raises `NoCertificates` or `BadCertificates` while there never was a pair that works."""
        now = time.monotonic()
        self._handshakes += 1
        is_full = self._handshakes > HANDSHAKES_OF_A_CONTEXT
        if self._context is not None and now - self._looked < LOOK_AGAIN_S and not is_full:
            return self._context
        self._looked = now
        try:
            seen = tuple(map(_identity, (self._place.authority, self._place.certificate, self._place.key)))
            if self._context is None or seen != self._seen or is_full:
                self._handshakes = 0
                fresh = self._load()
                if seen != self._seen:
                    log.info("certificate %s is in use", self._place.certificate)
                self._context = fresh
            self._seen = seen
        except AgentError as error:
            if self._context is None:
                raise
            if error.args != getattr(self, "_told", None):
                log.error("%s; the ones loaded before stay in use", error)
                self._told = error.args
        return self._context

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        # the engine offers no session tickets of ours anything, and they would carry no certificate
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        # and without tickets each session would stay in a cache, for hours
        context.num_tickets = 0
        try:
            context.load_verify_locations(self._place.authority)
            # a key with a passphrase is an error, not a question
            context.load_cert_chain(self._place.certificate, self._place.key, password="")
            if self._ciphers:
                context.set_ciphers(self._ciphers)
        except (ssl.SSLError, OSError) as error:
            raise BadCertificates(self._place.certificate, " ".join(str(error).split())) from error
        return context


def refusal(error: Exception) -> str:
    """In a few words, which of the usual reasons ended a handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _EXPIRED:
            return "the client's certificate has expired"
        if error.verify_code == _NOT_YET_VALID:
            return "the client's certificate is not valid yet"
        if error.verify_code in _FOREIGN:
            return "the client's certificate is of a foreign authority"
        return f"the client's certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").replace("_", " ").lower()
        if "did not return a certificate" in reason:
            return REFUSED_WITHOUT
        if reason in (
            "http request",
            "https proxy request",
            "wrong version number",
            "unknown protocol",
            "record layer failure",
        ):
            return "the client does not speak TLS"
        return f"TLS failed: {reason or error}"
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return "the handshake took too long"
    return "the client closed the connection in the handshake"


@dataclass(frozen=True)
class Shown:
    """What the peer's certificate says: its subject's common name (empty when it has none), SHA-256 of all of it."""

    name: str
    fingerprint: str


def shown_by(transport: asyncio.Transport) -> Shown | None:
    """The peer's certificate; None in plain mode."""
    connection = transport.get_extra_info("ssl_object")
    if connection is None:
        return None
    certificate = connection.getpeercert()
    parts = [pair for part in certificate.get("subject", ()) for pair in part]
    name = next((str(value) for key, value in parts if key == "commonName"), "")
    return Shown(name, hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest())


def _identity(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise NoCertificates(f"{path} ({error.strerror})") from error
    return status.st_ino, status.st_mtime_ns, status.st_size

# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator does with a host's certificates: make, renew, import. Each checks before it replaces.

A pair comes from an engine's authority (request, the engine signs, import) or from a lab authority of our own whose
key lies on one host, that signs for the others too. Nothing is put in place that a TLS handshake refuses.
"""

from __future__ import annotations

import grp
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from vdsm.certificates import making, places
from vdsm.certificates.examine import handshake
from vdsm.certificates.install import File, complete, install
from vdsm.certificates.making import Pair
from vdsm.common.atomic import write_atomic
from vdsm.common.errors import AgentError

AGENT_ID = 36
KEY_MODE = 0o440
KEY_FILE, REQUEST_FILE = "vdsmkey.pem", "vdsmcert.csr"
AUTHORITY_KEY, AUTHORITY_FILE = "cakey.pem", "cacert.pem"


class CertificatesExist(AgentError):
    folder: str
    msg = "There are certificates in {self.folder} already"
    remedy = "vdsm cert renew makes new ones; --force replaces the authority too: other hosts will not trust it"


class NoAuthority(AgentError):
    folder: str
    msg = "There is no authority of our own in {self.folder}"
    remedy = "Certificates of this host come from elsewhere: vdsm cert renew makes a signing request"


class NothingToImport(AgentError):
    msg = "Nothing to import was named"
    remedy = "Give --certificate, --ca, or both"


class NoKeyFits(AgentError):
    certificate: str
    msg = "None of the keys of this host belongs to {self.certificate}"
    remedy = "Give its key by --key, or make a signing request by vdsm cert renew and have that one signed"


class NotServing(AgentError):
    reason: str
    msg = "Nothing was changed: the new certificates would not serve: {self.reason}"


@dataclass(frozen=True)
class Request:
    """A key and a signing request that wait for a certificate."""

    key: str
    request: str


def init(pki: str, names: Sequence[str], *, days: int = making.DAYS, force: bool = False) -> None:
    """A lab authority, and a pair of it for this host. Raises `CertificatesExist`."""
    complete_interrupted(pki)
    if not force and (places.host(pki).exists() or os.path.exists(_authority_file(pki))):
        raise CertificatesExist(pki)
    authority = making.authority(f"authority of {names[0]}"[: making.MAX_NAME])
    folder = places.lab_authority_folder(pki)
    own = [
        (File(_below(pki, os.path.join(folder, AUTHORITY_KEY)), 0o400), authority.key),
        (File(_below(pki, _authority_file(pki))), authority.certificate),
    ]
    _put(pki, authority.certificate, making.issue(authority, names, days), own)


def renew(pki: str, names: Sequence[str], *, days: int = making.DAYS) -> Request | None:
    """New certificates at once where the lab authority's key is; else a signing request for who signs for this host.

    ``names``: those of the present certificate when none are given.
    """
    complete_interrupted(pki)
    wanted = list(names) or _present_names(pki)
    authority = _authority(pki)
    if authority is not None:
        _put(pki, authority.certificate, making.issue(authority, wanted, days), [])
        return None
    folder = places.request_folder(pki)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    request = Request(os.path.join(folder, KEY_FILE), os.path.join(folder, REQUEST_FILE))
    key = making.new_key()
    # the key first: a request without its key would be signed for nothing
    write_atomic(request.key, key, mode=0o400)
    write_atomic(request.request, making.request(key, wanted))
    return request


def import_(pki: str, *, certificate: str = "", key: str = "", authority: str = "") -> None:
    """Take over a signed certificate, a new authority, or both.

    The certificate's key is the one given, the one that waits with the signing request, or the present one.
    Raises `NothingToImport`, `NoKeyFits`, `NotServing`, `NotPem`, `OSError`.
    """
    complete_interrupted(pki)
    if not certificate and not authority:
        raise NothingToImport()
    present = places.host(pki)
    certificates = _read(certificate or present.certificate)
    trusted = _read(authority or present.authority)
    making.read(trusted, authority or present.authority)
    _put(pki, trusted, Pair(certificates, _key_of(pki, certificates, certificate or present.certificate, key)), [])
    waiting = places.request_folder(pki)
    for name in (KEY_FILE, REQUEST_FILE):
        if certificate and os.path.exists(os.path.join(waiting, name)):
            os.unlink(os.path.join(waiting, name))


def issue(pki: str, names: Sequence[str], *, days: int = making.DAYS) -> tuple[bytes, Pair]:
    """The lab authority's certificate and a pair for another host or a client. Raises `NoAuthority`."""
    authority = _authority(pki)
    if authority is None:
        raise NoAuthority(places.lab_authority_folder(pki))
    return authority.certificate, making.issue(authority, names, days)


def sign(pki: str, request: bytes, *, days: int = making.DAYS) -> tuple[bytes, bytes]:
    """The lab authority's certificate, and one for a signing request. Raises `NoAuthority`, `NotPem`."""
    authority = _authority(pki)
    if authority is None:
        raise NoAuthority(places.lab_authority_folder(pki))
    return authority.certificate, making.sign(authority, request, days)


def complete_interrupted(pki: str) -> bool:
    """Finish what a killed command had decided."""
    return os.path.isdir(pki) and complete(pki)


def _put(pki: str, authority: bytes, pair: Pair, more: list[tuple[File, bytes]]) -> None:
    _try(authority, pair)
    os.makedirs(pki, mode=0o755, exist_ok=True)
    place = places.host(pki)
    install(
        pki,
        [
            *more,
            (File(_below(pki, place.authority)), authority),
            (File(_below(pki, place.key), KEY_MODE, *_key_owner()), pair.key),
            (File(_below(pki, place.certificate)), pair.certificate),
        ],
    )


def _try(authority: bytes, pair: Pair) -> None:
    """A handshake with exactly these, before anything is replaced."""
    with tempfile.TemporaryDirectory(prefix="vdsm-cert-") as folder:
        files = {name: os.path.join(folder, name) for name in ("authority", "certificate", "key")}
        for name, data in (("authority", authority), ("certificate", pair.certificate), ("key", pair.key)):
            write_atomic(files[name], data, mode=0o600)
        reason = handshake(files["authority"], files["certificate"], files["key"])
    if reason:
        raise NotServing(reason)


def _key_of(pki: str, certificate: bytes, name: str, given: str) -> bytes:
    candidates = (
        [given]
        if given
        else [
            os.path.join(places.request_folder(pki), KEY_FILE),
            places.host(pki).key,
        ]
    )
    for candidate in candidates:
        if given or os.path.exists(candidate):
            key = _read(candidate)
            if making.belongs(key, certificate):
                return key
    raise NoKeyFits(name)


def _key_owner() -> tuple[int, int]:
    """The agent's user and QEMU's group, which reads it for encrypted migration (deploy.md)."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    try:
        return AGENT_ID, grp.getgrnam("kvm").gr_gid
    except KeyError:
        return AGENT_ID, AGENT_ID


def _present_names(pki: str) -> list[str]:
    file = places.host(pki).certificate
    found = making.names_of(making.read(_read(file), file))
    if not found:
        raise making.BadName("")
    return found


def _authority(pki: str) -> Pair | None:
    try:
        return Pair(_read(_authority_file(pki)), _read(os.path.join(places.lab_authority_folder(pki), AUTHORITY_KEY)))
    except FileNotFoundError:
        return None


def _below(pki: str, path: str) -> str:
    return os.path.relpath(path, pki)


def _authority_file(pki: str) -> str:
    return os.path.join(places.lab_authority_folder(pki), AUTHORITY_FILE)


def _read(file: str) -> bytes:
    with open(file, "rb") as source:
        return source.read(1 << 20)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator does with a host's certificates: make, renew, import. Each checks before it replaces.

A pair comes from an engine's authority (request, the engine signs, import) or from a lab authority of our own whose
key lies on one host, that signs for the others too. Nothing is put in place that a TLS handshake refuses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vdsm.certificates import below, making, places
from vdsm.certificates.examine import handshake
from vdsm.certificates.install import AGENT_ID, complete, install
from vdsm.certificates.making import Pair
from vdsm.common.errors import AgentError


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
    if not force and (places.host(pki).exists() or os.path.exists(os.path.join(pki, places.LAB_AUTHORITY))):
        raise CertificatesExist(pki)
    authority = making.authority(f"authority of {names[0]}"[: making.MAX_NAME])
    own = {places.LAB_KEY: authority.key, places.LAB_AUTHORITY: authority.certificate}
    _put(pki, own | _tried(authority.certificate, making.issue(authority, names, days)))


def renew(pki: str, names: Sequence[str], *, days: int = making.DAYS) -> Request | None:
    """New certificates at once where the lab authority's key is; else a signing request for who signs for this host.

    ``names``: those of the present certificate when none are given.
    """
    complete_interrupted(pki)
    wanted = list(names) or _present_names(pki)
    authority = _authority(pki)
    if authority is not None:
        _put(pki, _tried(authority.certificate, making.issue(authority, wanted, days)))
        return None
    key = making.new_key()
    # the key first: a request without its key would be signed for nothing
    below.write(pki, places.WAITING_KEY, key, 0o400, folders=0o700)
    below.write(pki, places.WAITING_REQUEST, making.request(key, wanted), 0o644, folders=0o700)
    return Request(os.path.join(pki, places.WAITING_KEY), os.path.join(pki, places.WAITING_REQUEST))


def import_(pki: str, *, certificate: str = "", key: str = "", authority: str = "") -> None:
    """Take over a signed certificate, a new authority, or both.

    The certificate's key is the one given, the one that waits with the signing request, or the present one. What stays
    is not written again: root does not copy what the agent may have put in its place.
    Raises `NothingToImport`, `NoKeyFits`, `NotServing`, `NotPem`, `OSError`.
    """
    complete_interrupted(pki)
    if not certificate and not authority:
        raise NothingToImport()
    present = places.host(pki)
    new: dict[str, bytes] = {}
    if authority:
        new[places.AUTHORITY] = making.certificates(_read(authority), authority)
    if certificate:
        new[places.CERTIFICATE] = making.certificates(_read(certificate), certificate)
    signed = new.get(places.CERTIFICATE) or making.certificates(_kept(pki, places.CERTIFICATE), present.certificate)
    trusted = new.get(places.AUTHORITY) or making.certificates(_kept(pki, places.AUTHORITY), present.authority)
    source, used = _key_of(pki, signed, certificate or present.certificate, key)
    if source != present.key:
        new[places.KEY] = used
    _try(trusted, Pair(signed, used))
    _put(pki, new)
    if certificate:
        for waiting in (places.WAITING_KEY, places.WAITING_REQUEST):
            below.remove(pki, waiting)


def issue(pki: str, names: Sequence[str], *, days: int = making.DAYS) -> tuple[bytes, Pair]:
    """The lab authority's certificate and a pair for another host or a client. Raises `NoAuthority`."""
    authority = _authority(pki)
    if authority is None:
        raise NoAuthority(os.path.join(pki, os.path.dirname(places.LAB_KEY)))
    return authority.certificate, making.issue(authority, names, days)


def sign(pki: str, request: str, *, days: int = making.DAYS) -> tuple[bytes, bytes]:
    """The lab authority's certificate, and one for the signing request in that file.

    Raises `NoAuthority`, `NotPem`, `making.BadRequest`.
    """
    authority = _authority(pki)
    if authority is None:
        raise NoAuthority(os.path.join(pki, os.path.dirname(places.LAB_KEY)))
    return authority.certificate, making.sign(authority, _read(request), days)


def complete_interrupted(pki: str) -> bool:
    """Finish what a killed command had decided."""
    return os.path.isdir(pki) and complete(pki)


def _put(pki: str, files: Mapping[str, bytes]) -> None:
    os.makedirs(pki, mode=0o755, exist_ok=True)
    install(pki, files)


def _tried(authority: bytes, pair: Pair) -> dict[str, bytes]:
    _try(authority, pair)
    return {places.AUTHORITY: authority, places.KEY: pair.key, places.CERTIFICATE: pair.certificate}


def _try(authority: bytes, pair: Pair) -> None:
    """A handshake with exactly these, before anything is replaced."""
    if making.is_authority(pair.certificate):
        raise NotServing("it is the certificate of an authority, not of a host")
    reason = handshake(authority, pair.certificate, pair.key)
    if reason:
        raise NotServing(reason)


def _key_of(pki: str, certificate: bytes, name: str, given: str) -> tuple[str, bytes]:
    """The certificate's key, and the file that it is in."""
    waiting, present = (os.path.join(pki, key) for key in (places.WAITING_KEY, places.KEY))
    if given:
        candidates = [(given, _read(given))]
    else:
        candidates = [
            (file, _kept(pki, os.path.relpath(file, pki))) for file in (waiting, present) if os.path.lexists(file)
        ]
    for file, key in candidates:
        if making.belongs(key, certificate):
            return file, key
    raise NoKeyFits(name)


def _present_names(pki: str) -> list[str]:
    found = making.names_of(making.read(_kept(pki, places.CERTIFICATE), os.path.join(pki, places.CERTIFICATE)))
    if not found:
        raise making.BadName("")
    return found


def _authority(pki: str) -> Pair | None:
    try:
        # the agent is not asked whom to trust: what it put there is not taken
        certificate, key = (below.read(pki, path, {0, os.geteuid()}) for path in (places.LAB_AUTHORITY, places.LAB_KEY))
    except FileNotFoundError:
        return None
    return Pair(making.certificates(certificate, os.path.join(pki, places.LAB_AUTHORITY)), key)


def _kept(pki: str, path: str) -> bytes:
    """A file below the folder, which may be the agent's: what it points to elsewhere is not ours to use."""
    return below.read(pki, path, {0, AGENT_ID, os.geteuid()})


def _read(file: str) -> bytes:
    """A file that who calls has named, be it a pipe."""
    return below.look(file, regular=False)

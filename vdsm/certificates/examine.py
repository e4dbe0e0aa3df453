# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a place's files serve, found out by using them: a TLS handshake in memory, the pair on both sides.

So what is told is what OpenSSL will do on the port: an expired certificate, a key of another, a foreign authority, a
certificate that may not be a client's.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from vdsm.certificates import below, making
from vdsm.certificates.places import Place

SOON_DAYS = 30
ROUNDS = 6  # flights of a handshake; TLS 1.3 takes three


@dataclass(frozen=True)
class Report:
    """``days_left`` is below zero once expired; None where there is no certificate to read."""

    name: str
    file: str
    use: str
    subject: str = ""
    issuer: str = ""
    names: list[str] = field(default_factory=list)
    expires: str = ""
    days_left: int | None = None
    authority_days_left: int | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def expires_soon(self) -> bool:
        return any(days is not None and days < SOON_DAYS for days in (self.days_left, self.authority_days_left))


def examine(place: Place) -> Report:
    """Never raises: what is wrong stands in ``problems``."""
    problems: list[str] = []
    texts = {file: _read(file, problems) for file in (place.authority, place.certificate, place.key)}
    try:
        found = making.read(texts[place.certificate], place.certificate) if texts[place.certificate] else None
        authority = making.read(texts[place.authority], place.authority) if texts[place.authority] else None
    except making.NotPem as e:
        return Report(place.name, place.certificate, place.use, problems=[*problems, str(e)])
    if all(texts.values()):
        trouble = handshake(texts[place.authority], texts[place.certificate], texts[place.key])
        problems += [trouble] if trouble else []
    problems += _modes(place.key)
    if found is None:
        return Report(place.name, place.certificate, place.use, problems=problems)
    return Report(
        place.name,
        place.certificate,
        place.use,
        subject=found.subject.rfc4514_string(),
        issuer=found.issuer.rfc4514_string(),
        names=making.names_of(found),
        expires=found.not_valid_after_utc.strftime("%Y-%m-%d %H:%M UTC"),
        days_left=_days_until(found.not_valid_after_utc),
        authority_days_left=_days_until(authority.not_valid_after_utc) if authority is not None else None,
        problems=problems,
    )


def handshake(authority: bytes, certificate: bytes, key: bytes) -> str:
    """What keeps these from serving a host that calls a host; empty when nothing does."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    server.verify_mode = ssl.CERT_REQUIRED
    with _file(authority) as trusted, _file(certificate) as chain, _file(key) as private:
        try:
            for context in (server, client):
                context.load_cert_chain(chain, private, password=_no_passphrase)
        except _Encrypted:
            return "the key is encrypted, and an agent has nobody to ask for its passphrase: store it without one"
        except ssl.SSLError as e:
            mismatch = "KEY_VALUES_MISMATCH" in str(e)
            return "the key is of another certificate" if mismatch else f"the pair can't be loaded: {_reason(e)}"
        try:
            for context in (server, client):
                context.load_verify_locations(trusted)
        except ssl.SSLError as e:
            return f"the authority can't be loaded: {_reason(e)}"
    return _shake(server, client)


class _Encrypted(Exception):
    pass


def _no_passphrase() -> bytes:
    """Without this OpenSSL asks at the terminal."""
    raise _Encrypted


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[str]:
    """For OpenSSL, which wants paths; in memory, so that a key does not lie about when we are killed."""
    fd = os.memfd_create("certificates")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = {
        "as a client": client.wrap_bio(to_client, to_server, server_hostname=None),
        "as a server": server.wrap_bio(to_server, to_client, server_side=True),
    }
    done: set[str] = set()
    for _ in range(ROUNDS):
        for side, connection in sides.items():
            if side in done:
                continue
            try:
                connection.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as e:
                # whose certificate is looked at is the other side
                used = "as a server" if side == "as a client" else "as a client"
                return f"not accepted {used}: {e.verify_message}"
            except ssl.SSLError as e:
                return f"TLS fails {side}: {_reason(e)}"
    return "" if len(done) == len(sides) else "TLS does not come to an end"


def _read(file: str, problems: list[str]) -> bytes:
    try:
        return below.look(file, regular=True)
    except below.NotTaken as e:
        problems.append(str(e))
    except OSError as e:
        problems.append(f"{file}: {e.strerror}")
    return b""


def _modes(key: str) -> list[str]:
    try:
        mode = os.stat(key).st_mode
    except OSError:
        return []  # told already
    return [f"{key} can be read by every user: chmod o-rwx"] if mode & (stat.S_IROTH | stat.S_IWOTH) else []


def _days_until(when: datetime.datetime) -> int:
    return (when - datetime.datetime.now(datetime.UTC)).days


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)

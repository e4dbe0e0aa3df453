# SPDX-License-Identifier: GPL-2.0-or-later
"""Which role a certificate has, from ``/etc/vdsm/access.toml``; the default is VDSM's: every one of the CA is admin.

The file is root's. It is looked at again, at most once a second: a changed one counts from the next call of a new
connection on, and connections whose role it changed are closed. One that can't be read keeps the port closed at start,
and later leaves the rules that were read before in force: a typing error must neither open a host nor cut it off. The
same holds for one that is gone or empty while the agent runs, for that is what a full disk or an editor leaves.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import Literal

import msgspec

from vdsm.api.roles import Role
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.rpc.policy")

FILE = "access.toml"
LOOK_AGAIN_S = 1.0
MAX_BYTES = 1 << 20
REFUSED = "refused"
_FINGERPRINT = re.compile("[0-9a-f]{64}")

Word = Literal["reader", "operator", "peer", "admin", "refused"]


class BadPolicy(AgentError):
    file: str
    reason: str
    msg = "{self.file}: {self.reason}"
    remedy = "docs/access.md shows the form of this file; 'vdsm doctor' tells when it can be read"


class CertificateRefused(AgentError):
    name: str
    msg = "The certificate of {self.name!r} is refused by the access policy"


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    role: Word
    name: str = ""
    sha256: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    default: Word
    certificate: list[_Entry] = []


@dataclass(frozen=True)
class Rule:
    """A common name (``*`` and ``?`` stand for any text and sign) or a fingerprint of one certificate."""

    name: str
    fingerprint: str
    role: Role | None

    def matches(self, name: str, fingerprint: str) -> bool:
        if self.fingerprint:
            return self.fingerprint == fingerprint
        return fnmatch.fnmatchcase(name.lower(), self.name)


@dataclass(frozen=True)
class Policy:
    """``None`` as a role: refused."""

    rules: tuple[Rule, ...] = ()
    default: Role | None = Role.ADMIN

    def role_of(self, name: str, fingerprint: str) -> Role | None:
        """The role of the first rule that matches."""
        return next((rule.role for rule in self.rules if rule.matches(name, fingerprint)), self.default)


def parse(data: bytes, where: str) -> Policy:
    """Raises `BadPolicy` with the place of what is wrong."""
    try:
        found = msgspec.toml.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise BadPolicy(where, " ".join(str(e).split())) from None
    except RecursionError:
        raise BadPolicy(where, "it is nested too deep") from None
    rules = []
    for number, entry in enumerate(found.certificate, 1):
        fingerprint = entry.sha256.replace(":", "").lower()
        if bool(entry.name) == bool(entry.sha256):
            raise BadPolicy(where, f"certificate {number}: expected either name or sha256")
        if fingerprint and not _FINGERPRINT.fullmatch(fingerprint):
            raise BadPolicy(where, f"certificate {number}: sha256 is not 64 hexadecimal digits")
        rules.append(Rule(entry.name.lower(), fingerprint, _role(entry.role)))
    return Policy(tuple(rules), _role(found.default))


class PolicyFile:
    def __init__(self, folder: str) -> None:
        self._file = os.path.join(folder, FILE)
        self._policy: Policy | None = None
        self._seen: object = None
        self._looked = -LOOK_AGAIN_S
        self._told = ""

    def current(self) -> Policy:
        """Raises `BadPolicy` while there never was one that could be read."""
        now = time.monotonic()
        if self._policy is not None and now - self._looked < LOOK_AGAIN_S:
            return self._policy
        self._looked = now
        try:
            seen = _identity(self._file)
            if self._policy is None or seen != self._seen:
                if seen is None and self._policy is not None and self._policy != Policy():
                    raise BadPolicy(self._file, "it is gone")
                fresh = _load(self._file)
                if self._policy is not None:
                    log.info("the access policy %s was read again", self._file)
                self._policy, self._told = fresh, ""
                self._seen = seen
        except BadPolicy as error:
            if self._policy is None:
                raise
            if str(error) != self._told:
                log.error("%s; the policy read before stays in force", error)
                self._told = str(error)
        return self._policy


def _load(file: str) -> Policy:
    try:
        with open(file, "rb") as source:
            status = os.fstat(source.fileno())
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise BadPolicy(file, "must belong to root and be writable by nobody else")
            data = source.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise BadPolicy(file, f"more than {MAX_BYTES} bytes")
            return parse(data, file)
    except FileNotFoundError:
        return Policy()
    except OSError as e:
        raise BadPolicy(file, e.strerror or str(e)) from None


def _identity(file: str) -> object:
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise BadPolicy(file, e.strerror or str(e)) from None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _role(word: Word) -> Role | None:
    return None if word == REFUSED else Role(word)

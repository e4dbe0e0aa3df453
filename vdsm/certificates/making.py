# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys, signing requests, certificates, and an authority for hosts without an engine. PEM in, PEM out; no files.

Keys are P-256 (TLS 1.2 of the engine takes them). A host's certificate serves as server and as client: hosts call
each other with it (wire.md 1).
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vdsm.common.errors import AgentError

ORGANISATION = "vdsm lab"
AUTHORITY_DAYS = 3650
DAYS = 397
# clocks of hosts differ: a certificate is valid from a little earlier
SKEW = datetime.timedelta(hours=1)
MAX_NAME = 64  # of X.520 common names


class NotPem(AgentError):
    what: str
    reason: str
    msg = "{self.what} can't be read: {self.reason}"


class BadName(AgentError):
    name: str
    msg = "{self.name!r} is no name for a certificate: expected 1 to 64 printable characters"


class BadRequest(AgentError):
    reason: str
    msg = "The signing request is not signed: {self.reason}"
    remedy = "Make one for exactly one common name: vdsm cert renew --name NAME, or openssl req"


class BadSignature(AgentError):
    what: str
    msg = "The signature of {self.what} is wrong"


@dataclass(frozen=True)
class Pair:
    certificate: bytes
    key: bytes


def new_key() -> bytes:
    """A fresh private key."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def request(key: bytes, names: Sequence[str]) -> bytes:
    """A signing request for the first name, also valid for the others: DNS names or addresses."""
    _check(names)
    builder = x509.CertificateSigningRequestBuilder(_subject(names[0])).add_extension(_alternatives(names), False)
    return builder.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def authority(name: str, days: int = AUTHORITY_DAYS) -> Pair:
    """An authority that signs itself."""
    _check([name])
    key = new_key()
    private = _private(key)
    builder = (
        _builder(_subject(name), days)
        .issuer_name(_subject(name))
        .public_key(private.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    )
    return Pair(_pem(builder.sign(private, hashes.SHA256())), key)


def sign(by: Pair, asked: bytes, days: int = DAYS) -> bytes:
    """The certificate for a signing request: its subject and names, for use as server and client.

    Raises `NotPem`, `BadRequest`, or `BadSignature` when the request is not signed by its own key.
    """
    wanted = _request(asked)
    _check_asked(wanted)
    issuer, issuer_key = read(by.certificate, "the authority's certificate"), _private(by.key)
    builder = (
        _builder(wanted.subject, days)
        .issuer_name(issuer.subject)
        .public_key(wanted.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    try:
        names = wanted.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = builder.add_extension(names.value, critical=False)
    except x509.ExtensionNotFound:
        pass  # a request of an engine's deployment has none
    return _pem(builder.sign(issuer_key, hashes.SHA256()))


def issue(by: Pair, names: Sequence[str], days: int = DAYS) -> Pair:
    """A fresh pair for these names."""
    key = new_key()
    return Pair(sign(by, request(key, names), days), key)


def read(data: bytes, what: str) -> x509.Certificate:
    """The first certificate of a PEM text. Raises `NotPem`."""
    try:
        return x509.load_pem_x509_certificate(data)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise NotPem(what, _first_line(e)) from None


def certificates(data: bytes, what: str) -> bytes:
    """Only the certificates of a PEM text, written anew: a key that stands among them is left out. Raises `NotPem`."""
    try:
        return b"".join(map(_pem, x509.load_pem_x509_certificates(data)))
    except (ValueError, UnsupportedAlgorithm) as e:
        raise NotPem(what, _first_line(e)) from None


def is_authority(certificate: bytes) -> bool:
    """Whether the first certificate may sign others. Raises `NotPem`."""
    try:
        found = read(certificate, "the certificate").extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    except (ValueError, x509.DuplicateExtension) as e:
        raise NotPem("The certificate", _first_line(e)) from None
    return found.value.ca


def belongs(key: bytes, certificate: bytes) -> bool:
    """Whether the private key is the certificate's. Raises `NotPem`."""
    return _public(_private(key).public_key()) == _public(read(certificate, "the certificate").public_key())


def names_of(certificate: x509.Certificate) -> list[str]:
    """The subject's common name, then the alternative names, each once."""
    found = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return list(dict.fromkeys(found + _alternatives_of(certificate.extensions)))


def _request(data: bytes) -> x509.CertificateSigningRequest:
    try:
        found = x509.load_pem_x509_csr(data)
        signed = found.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as e:
        raise NotPem("The signing request", _first_line(e)) from None
    if not signed:
        raise BadSignature("the signing request")
    return found


def _private(data: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise NotPem("The private key", _first_line(e)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise NotPem("The private key", "expected an RSA or elliptic curve key")
    return key


def _check(names: Sequence[str]) -> None:
    for name in names:
        if not (0 < len(name) <= MAX_NAME and name.isprintable()):
            raise BadName(name[:MAX_NAME])


def _check_asked(wanted: x509.CertificateSigningRequest) -> None:
    """Who asks chooses these: a name decides a role, and stands in logs and tables.

    Two common names would be one to who looks at the first, and another to who looks at the last.
    """
    try:
        found = [(part.oid, part.value) for part in wanted.subject]
        shown = [str(value) for _, value in found] + _alternatives_of(wanted.extensions)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as e:
        raise NotPem("The signing request", _first_line(e)) from None
    names = [str(value) for oid, value in found if oid == NameOID.COMMON_NAME]
    if len(names) != 1:
        raise BadRequest(f"it has {len(names)} common names, expected one")
    _check(names)
    for text in shown:
        if not text.isprintable():
            raise BadRequest(f"{text[:MAX_NAME]!r} has control characters")


def _alternatives_of(extensions: x509.Extensions) -> list[str]:
    """DNS names and addresses."""
    try:
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return found.get_values_for_type(x509.DNSName) + [str(one) for one in found.get_values_for_type(x509.IPAddress)]


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            try:
                found.append(x509.DNSName(name.encode("idna").decode() if not name.isascii() else name))
            except (ValueError, UnicodeError):
                raise BadName(name) from None
    return x509.SubjectAlternativeName(found)


def _builder(subject: x509.Name, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _public(key: object) -> bytes:
    assert hasattr(key, "public_bytes")
    found: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def _first_line(error: Exception) -> str:
    return str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__

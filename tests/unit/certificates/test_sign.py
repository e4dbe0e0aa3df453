# SPDX-License-Identifier: GPL-2.0-or-later
"""Signing requests of others: a name decides a role, and stands in logs and tables."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vdsm.certificates import making


def asking(*names, alternative="host"):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in names])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(alternative)]), False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.filterwarnings("ignore:Attribute's length")
@pytest.mark.parametrize(
    ("names", "error", "told"),
    [
        (["engine", "joe"], making.BadRequest, "2 common names"),
        ([], making.BadRequest, "0 common names"),
        (["joe\nVM.destroy by engine"], making.BadName, "printable"),
        (["joe\x1b[2J"], making.BadName, "printable"),
        (["j" * 65], making.BadName, "1 to 64"),
    ],
)
def test_a_request_with_a_name_that_could_deceive_is_not_signed(names, error, told):
    with pytest.raises(error, match=told):
        making.sign(making.authority("authority"), asking(*names))


def test_a_request_with_a_deceiving_alternative_name_is_not_signed():
    with pytest.raises(making.BadRequest, match="control characters"):
        making.sign(making.authority("authority"), asking("joe", alternative="joe\nann"))

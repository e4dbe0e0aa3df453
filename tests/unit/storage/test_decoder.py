# SPDX-License-Identifier: GPL-2.0-or-later
"""The decoder is of use only while it shares nothing with what it checks."""

import ast
from pathlib import Path

from tests import decoder
from tests.decoder import sanlock_bytes, text

FOLDER = Path(decoder.__file__).parent


def test_decoder_imports_nothing_of_the_agent():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in {"storage", "vdsm", "network", "contrib"}, f"{path}: {name}"


def test_decoder_knows_the_checksum_vector():
    fields = {
        "ALIGNMENT": "1048576",
        "BLOCK_SIZE": "512",
        "CLASS": "Data",
        "DESCRIPTION": "storage domain",
        "IOOPTIMEOUTSEC": "10",
        "LEASERETRIES": "3",
        "LEASETIMESEC": "60",
        "LOCKPOLICY": "",
        "LOCKRENEWALINTERVALSEC": "5",
        "POOL_UUID": "",
        "REMOTE_PATH": "server:/path",
        "ROLE": "Regular",
        "SDUUID": "275766cb-c7d8-43d6-a663-4e52160de620",
        "TYPE": "LOCALFS",
        "VERSION": "5",
        "_SHA_CKSUM": "9336f77705ff9e3d5faf65c4d0dc818a29de458d",
    }
    data = "".join(f"{k}={v}\n" for k, v in sorted(fields.items())).encode()
    fields.pop("_SHA_CKSUM")
    assert text.domain(data) == fields


def test_decoder_has_sanlocks_checksum():
    assert sanlock_bytes.crc(b"") == 0xFFFFFFFE

# SPDX-License-Identifier: GPL-2.0-or-later
"""What an import takes over, and from where: certificates as such, and no key that the agent has put in the way."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vdsm.certificates import below, keeping, making, places


@pytest.fixture
def pki(tmp_path):
    keeping.init(str(tmp_path / "pki"), ["host1.lab"])
    return str(tmp_path / "pki")


def write(path, data):
    path.write_bytes(data)
    return str(path)


def below_pki(pki, path):
    return Path(pki, path).read_bytes()


def test_a_key_beside_the_certificate_stays_out_of_its_file(pki, tmp_path):
    authority, pair = keeping.issue(pki, ["host1.lab"])
    combined = write(tmp_path / "combined", pair.key + b"a note\n" + pair.certificate + authority)
    keeping.import_(pki, certificate=combined, key=combined)
    assert below_pki(pki, places.CERTIFICATE) == pair.certificate + authority


def test_an_authority_s_key_stays_out_of_its_file(pki, tmp_path):
    authority, key = (below_pki(pki, path) for path in (places.LAB_AUTHORITY, places.LAB_KEY))
    second = making.authority("second").certificate
    keeping.import_(pki, authority=write(tmp_path / "ca", key + authority + second))
    assert below_pki(pki, places.AUTHORITY) == authority + second


def test_an_own_authority_s_key_is_not_handed_out_with_it(pki):
    authority, key = (below_pki(pki, path) for path in (places.LAB_AUTHORITY, places.LAB_KEY))
    Path(pki, places.LAB_AUTHORITY).write_bytes(authority + key)
    handed, _ = keeping.issue(pki, ["joe"])
    assert handed == authority


def test_a_key_is_not_taken_through_a_link(pki, tmp_path):
    authority = write(tmp_path / "ca", below_pki(pki, places.LAB_AUTHORITY))
    os.unlink(os.path.join(pki, places.KEY))
    os.symlink("../lab-ca/cakey.pem", os.path.join(pki, places.KEY))
    Path(pki, places.CERTIFICATE).write_bytes(below_pki(pki, places.LAB_AUTHORITY))
    with pytest.raises(below.NotTaken, match="symbolic link"):
        keeping.import_(pki, authority=authority)
    assert os.path.islink(os.path.join(pki, places.KEY))


def test_an_authority_s_certificate_is_no_host_s(pki, tmp_path):
    certificate, key = (
        write(tmp_path / name, below_pki(pki, path))
        for name, path in (("certificate", places.LAB_AUTHORITY), ("key", places.LAB_KEY))
    )
    before = below_pki(pki, places.KEY)
    with pytest.raises(keeping.NotServing, match="certificate of an authority"):
        keeping.import_(pki, certificate=certificate, key=key)
    assert below_pki(pki, places.KEY) == before


def test_an_import_of_an_authority_does_not_write_the_pair(pki, tmp_path):
    pair = [os.path.join(pki, path) for path in (places.CERTIFICATE, places.KEY)]
    before = [os.stat(file).st_ino for file in pair]
    keeping.import_(pki, authority=write(tmp_path / "ca", below_pki(pki, places.LAB_AUTHORITY)))
    assert [os.stat(file).st_ino for file in pair] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
@pytest.mark.parametrize("path", [places.LAB_AUTHORITY, places.LAB_KEY])
def test_an_authority_of_the_agent_s_making_signs_nothing(pki, path):
    os.chown(os.path.join(pki, path), 36, 36)
    with pytest.raises(below.NotTaken, match="belongs to user 36"):
        keeping.renew(pki, [])


def test_a_request_is_not_written_through_a_linked_folder(pki, tmp_path):
    os.rename(os.path.join(pki, "lab-ca"), tmp_path / "away")
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", os.path.join(pki, "requests"))
    with pytest.raises(below.NotAFolder, match="requests is a symbolic link"):
        keeping.renew(pki, [])
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("joe", "! It names joe; this host is "),
        ("192.0.2.1", "! It names 192.0.2.1"),
        ("127.0.0.1", ""),
        (socket.gethostname(), ""),
        (f"{socket.gethostname()}.lab", ""),
    ],
)
def test_a_certificate_of_somebody_else_is_taken_with_a_word(pki, tmp_path, name, told):
    _, pair = keeping.issue(pki, [name])
    files = (f"--certificate={write(tmp_path / 'c', pair.certificate)}", f"--key={write(tmp_path / 'k', pair.key)}")
    argv = [sys.executable, "-m", "vdsm.cli", "cert", "import", *files, "--pki", pki]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.startswith(told) and bool(done.stderr) == bool(told)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's certificates: made, looked at, replaced. What is made is checked by the openssl command."""

import datetime
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vdsm.certificates import install, keeping, making, places
from vdsm.certificates.examine import examine
from vdsm.cli import cert as cert_commands
from vdsm.cli.app import app

POINTS = (install.DECIDED.name, install.COPIED.name)


@pytest.fixture
def pki(tmp_path):
    keeping.init(str(tmp_path / "pki"), ["host1.lab", "10.0.0.1"])
    return str(tmp_path / "pki")


def openssl(*words):
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout


def contents(pki):
    return {
        os.path.join(folder, file): Path(folder, file).read_bytes()
        for folder, _, files in os.walk(pki)
        for file in files
    }


def cert(pki, *words, **more):
    argv = [sys.executable, "-m", "vdsm.cli", "cert", *words, "--pki", pki]
    return subprocess.run(argv, capture_output=True, text=True, check=False, **more)


def write(path, data):
    path.write_bytes(data)
    return str(path)


def test_an_authority_s_pair_serves_both_ways(pki):
    place = places.host(pki)
    for purpose in ("sslserver", "sslclient"):
        assert openssl("verify", "-CAfile", place.authority, "-purpose", purpose, place.certificate).endswith("OK\n")
    names = openssl("x509", "-in", place.certificate, "-noout", "-ext", "subjectAltName")
    assert "DNS:host1.lab" in names
    assert "IP Address:10.0.0.1" in names
    assert stat.S_IMODE(os.stat(place.key).st_mode) == 0o440
    report = examine(place)
    assert report.problems == []
    assert report.days_left == making.DAYS - 1
    assert report.names == ["host1.lab", "10.0.0.1"]


def test_what_is_there_is_not_made_again(pki):
    before = contents(pki)
    with pytest.raises(keeping.CertificatesExist):
        keeping.init(pki, ["other"])
    assert contents(pki) == before


def test_renewal_by_the_authority_keeps_the_names_and_changes_the_key(pki):
    old = contents(pki)
    assert keeping.renew(pki, []) is None
    new = contents(pki)
    place = places.host(pki)
    assert new[place.key] != old[place.key]
    assert new[place.authority] == old[place.authority]
    report = examine(place)
    assert report.problems == []
    assert report.names == ["host1.lab", "10.0.0.1"]


def test_a_request_is_signed_elsewhere_and_imported(pki, tmp_path):
    """The engine's way: its authority signs with a subject of its own."""
    engine = making.authority("engine's authority")
    ca, ca_key = write(tmp_path / "ca.pem", engine.certificate), write(tmp_path / "ca.key", engine.key)
    os.rename(Path(pki, "lab-ca"), tmp_path / "away")
    request = keeping.renew(pki, [])
    assert "host1.lab" in openssl("req", "-in", request.request, "-noout", "-subject", "-verify")
    signed = str(tmp_path / "signed.pem")
    openssl(
        *("x509", "-req", "-in", request.request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"),
        *("-days", "5", "-out", signed),
    )
    keeping.import_(pki, certificate=signed, authority=ca)
    report = examine(places.host(pki))
    assert report.problems == []
    assert report.days_left == 4
    assert report.expires_soon
    assert os.listdir(Path(pki, "requests")) == []


def test_a_certificate_of_another_authority_is_refused_and_nothing_changes(pki, tmp_path):
    pair = making.issue(making.authority("foreign"), ["host1.lab"])
    files = [write(tmp_path / name, data) for name, data in (("c", pair.certificate), ("k", pair.key))]
    before = contents(pki)
    with pytest.raises(keeping.NotServing, match="unable to get local issuer certificate"):
        keeping.import_(pki, certificate=files[0], key=files[1])
    assert contents(pki) == before


def test_a_certificate_without_its_key_is_refused(pki, tmp_path):
    _, pair = keeping.issue(pki, ["host2"])
    with pytest.raises(keeping.NoKeyFits):
        keeping.import_(pki, certificate=write(tmp_path / "c", pair.certificate))


@pytest.mark.parametrize("data", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(pki, tmp_path, data):
    before = contents(pki)
    done = cert(pki, "import", "--certificate", write(tmp_path / "c", data))
    assert done.returncode == 1
    assert "can't be read" in done.stderr
    assert contents(pki) == before


def test_a_host_recovers_after_expiry(pki, monkeypatch):
    with monkeypatch.context() as past:
        past.setattr(making, "SKEW", datetime.timedelta(days=20))
        past.setattr(keeping, "handshake", lambda *files: "")
        keeping.renew(pki, [], days=-3)
    done = cert(pki, "status")
    assert done.returncode == 5
    assert "certificate has expired" in done.stdout
    assert "expired 4 days ago" in done.stdout or "expired 3 days ago" in done.stdout
    assert cert(pki, "renew").returncode == 0
    assert cert(pki, "status").returncode == 0


def test_an_expired_certificate_is_not_imported(pki, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "SKEW", datetime.timedelta(days=20))
    _, pair = keeping.issue(pki, ["host1.lab"], days=-3)
    files = [write(tmp_path / name, data) for name, data in (("c", pair.certificate), ("k", pair.key))]
    with pytest.raises(keeping.NotServing, match="certificate has expired"):
        keeping.import_(pki, certificate=files[0], key=files[1])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda place, other: os.unlink(place.key), "No such file"),
        (lambda place, other: os.chmod(place.key, 0o444), "can be read by every user"),
        (lambda place, other: Path(place.key).write_bytes(other.key), "the key is of another certificate"),
        (lambda place, other: Path(place.certificate).write_bytes(b"x"), "can't be read"),
        (lambda place, other: Path(place.authority).write_bytes(other.certificate), "not accepted"),
    ],
)
def test_status_says_what_is_wrong(pki, harm, told):
    os.chmod(places.host(pki).key, 0o640)
    harm(places.host(pki), making.authority("other"))
    done = cert(pki, "status", "--json")
    assert done.returncode == 5
    assert told in " ".join(json.loads(done.stdout)[0]["problems"])


def test_clients_get_pairs_and_requests_are_signed(pki, tmp_path):
    out = tmp_path / "out"
    assert cert(pki, "issue", "joe", "--out", str(out)).returncode == 0
    assert sorted(os.listdir(out)) == ["cacert.pem", "joe.key", "joe.pem"]
    assert stat.S_IMODE((out / "joe.key").stat().st_mode) == 0o600
    request = write(tmp_path / "request", making.request(making.new_key(), ["ann"]))
    assert cert(pki, "issue", "ann", "--request", request, "--out", str(out)).returncode == 0
    for name in ("joe", "ann"):
        assert openssl("verify", "-CAfile", str(out / "cacert.pem"), str(out / f"{name}.pem")).endswith("OK\n")
    assert cert(pki, "issue", "../joe", "--out", str(out)).returncode == 2
    assert cert(str(tmp_path / "none"), "issue", "joe", "--out", str(out)).returncode == 1


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_command_leaves_all_old_or_becomes_all_new(pki, point):
    old = contents(pki)
    killed = cert(pki, "renew", env={**os.environ, "VDSM_CRASH_AT": point})
    assert killed.returncode == -signal.SIGKILL
    status = cert(pki, "status")
    assert "was cut off" in status.stdout
    # what the root helper does when it starts, and every command that writes
    assert keeping.complete_interrupted(pki)
    report = examine(places.host(pki))
    assert report.problems == []
    new = contents(pki)
    assert set(new) == set(old)
    place = places.host(pki)
    assert new[place.key] != old[place.key]
    assert new[place.certificate] != old[place.certificate]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_user_who_may_not_read_the_key_is_told_so_and_sees_the_rest(pki, monkeypatch, as_json):
    monkeypatch.setattr(cert_commands, "_closed", lambda file: file.endswith("vdsmkey.pem"))
    done = CliRunner().invoke(app, ["cert", "status", "--pki", pki, *["--json"] * as_json])
    assert done.exit_code == 1
    assert "may not read" in done.stderr and "vdsmkey.pem" in done.stderr and "Run it as root" in done.stderr
    assert "days_left" in done.stdout or "days left" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_is_closed_is_not_taken_for_an_empty_one(pki, tmp_path):
    os.chmod(tmp_path, 0o700)
    os.seteuid(65534)
    try:
        done = CliRunner().invoke(app, ["cert", "status", "--pki", pki])
    finally:
        os.seteuid(0)
    assert done.exit_code == 1
    assert "User 65534 may not read" in done.stderr
    assert "There is no certificate" not in done.stdout


def test_an_encrypted_key_is_told_and_not_asked_for(pki):
    key = places.host(pki).key
    os.chmod(key, 0o600)
    openssl("pkcs8", "-topk8", "-in", key, "-out", f"{key}.new", "-passout", "pass:secret")
    os.rename(f"{key}.new", key)
    main, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "vdsm.cli", "cert", "status", "--pki", pki],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as status:
        try:
            out, _ = status.communicate(timeout=20)
        finally:
            status.kill()  # it waits for an answer, if it asks
    os.close(main)
    os.close(terminal)
    assert b"the key is encrypted" in out
    assert status.returncode == 5


def test_status_is_not_held_up_by_what_is_no_file(pki):
    key = places.host(pki).key
    os.unlink(key)
    os.mkfifo(key)
    assert "no regular file" in " ".join(examine(places.host(pki)).problems)


@pytest.mark.parametrize("option", ["--certificate", "--ca", "--key"])
def test_a_file_that_is_too_large_is_refused_and_not_cut(pki, tmp_path, option):
    first = Path(places.host(pki).authority).read_bytes()
    _, pair = keeping.issue(pki, ["host1.lab"])
    options = {"--certificate": write(tmp_path / "c", pair.certificate), "--key": write(tmp_path / "k", pair.key)}
    options[option] = write(tmp_path / "large", first + b"\n" * (1 << 20) + first)
    before = contents(pki)
    done = cert(pki, "import", *(word for pair in options.items() for word in pair))
    assert done.returncode == 1
    assert f"it has {(1 << 20) + 2 * len(first)} bytes" in done.stderr
    assert contents(pki) == before


def test_a_file_that_was_named_may_be_a_pipe(pki, tmp_path):
    _, pair = keeping.issue(pki, ["host1.lab"])
    key = write(tmp_path / "k", pair.key)
    done = cert(pki, "import", "--certificate", "/dev/stdin", "--key", key, input=pair.certificate.decode())
    assert done.returncode == 0
    assert contents(pki)[places.host(pki).certificate] == pair.certificate

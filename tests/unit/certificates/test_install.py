# SPDX-License-Identifier: GPL-2.0-or-later
"""A change of several files: decided where only root writes, then completed, by whoever finds it."""

import base64
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from vdsm.certificates import below, install, places
from vdsm.common.paths import Paths
from vdsm.root.server.__main__ import _complete_certificates

NEW = {places.AUTHORITY: b"new authority", places.KEY: b"new key", places.CERTIFICATE: b"new certificate"}
OLD = dict.fromkeys(NEW, b"old")


@pytest.fixture
def pki(tmp_path):
    folder = tmp_path / "pki"
    folder.mkdir()
    install.install(str(folder), OLD)
    return str(folder)


def contents(pki):
    return {
        os.path.relpath(os.path.join(folder, file), pki): Path(folder, file).read_bytes()
        for folder, _, files in os.walk(pki)
        for file in files
        if file != ".decision"
    }


def decide(pki, text=None):
    """What a killed command leaves."""
    if text is None:
        text = json.dumps({path: base64.b64encode(data).decode() for path, data in NEW.items()})
    decision = Path(places.decision(pki))
    decision.write_text(text)
    decision.chmod(0o600)
    return decision


class At:
    """In a crash point's place: something happens there."""

    def __init__(self, happens):
        self.reach = happens


@pytest.mark.parametrize("spelled", ["/etc/pki/vdsm", "/etc/pki/vdsm/", "/etc/pki/../pki/vdsm"])
def test_the_host_s_decision_lies_where_only_root_writes(spelled):
    assert places.decision(spelled) == "/var/lib/vdsm-root/certificates/decision"


def test_the_decision_s_folder_is_root_s_alone(tmp_path, monkeypatch):
    paths = Paths(pki=str(tmp_path / "pki"), root_state=str(tmp_path / "state"))
    monkeypatch.setattr(places, "Paths", lambda: paths)
    os.mkdir(paths.pki)
    seen = []
    folder = tmp_path / "state" / "certificates"
    look = At(lambda: seen.append((stat.S_IMODE(folder.stat().st_mode), os.listdir(folder), os.listdir(paths.pki))))
    monkeypatch.setattr(install, "COPIED", look)
    install.install(paths.pki, {places.KEY: b"key"})
    assert seen == [(0o700, ["decision"], ["keys"])]
    assert os.listdir(folder) == []


def test_modes_are_those_of_the_files_whatever_was_there(pki):
    for path in NEW:
        os.chmod(os.path.join(pki, path), 0o777)
    install.install(pki, NEW)
    assert {path: stat.S_IMODE(os.stat(os.path.join(pki, path)).st_mode) for path in NEW} == {
        places.AUTHORITY: 0o644,
        places.KEY: 0o440,
        places.CERTIFICATE: 0o644,
    }


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "certs/../../outside", "certs/other.pem", ""])
def test_a_decision_names_known_files_only(pki, path):
    decide(pki, json.dumps({places.KEY: "", path: ""}))
    with pytest.raises(install.BadDecision, match="is no file of certificates"):
        install.complete(pki)
    assert contents(pki)[places.KEY] == b"old"


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda file: file.chmod(0o622), "others may read or write it"),
        (lambda file: file.write_text("garbage"), "malformed"),
        (lambda file: file.write_text('{"keys/vdsmkey.pem": {"mode": 2541}}'), "Expected `bytes`"),
        (lambda file: (file.unlink(), os.mkfifo(file, 0o600)), "no regular file"),
        (lambda file: (file.unlink(), file.symlink_to("/dev/zero")), "symbolic link"),
        (lambda file: os.truncate(file, install.MAX_BYTES + 1), "bytes, more than"),
        pytest.param(
            lambda file: os.chown(file, 36, 36),
            "belongs to user 36",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away"),
        ),
    ],
)
def test_a_decision_that_is_not_ours_is_told_and_not_carried_out(pki, harm, told):
    harm(decide(pki))
    with pytest.raises(install.BadDecision, match=told):
        install.complete(pki)
    assert contents(pki)[places.KEY] == b"old"


def test_the_helper_completes_what_was_cut_off_when_it_starts(pki):
    decide(pki)
    _complete_certificates(pki)
    assert contents(pki) == NEW


def test_the_helper_starts_though_a_decision_is_none(pki, caplog):
    os.mkfifo(places.decision(pki))
    _complete_certificates(pki)
    assert "can't be completed" in caplog.text


def test_a_linked_folder_is_refused_before_anything_is_decided(pki, tmp_path):
    os.rename(os.path.join(pki, "certs"), tmp_path / "outside")
    os.symlink(tmp_path / "outside", os.path.join(pki, "certs"))
    with pytest.raises(below.NotAFolder, match="certs is a symbolic link"):
        install.install(pki, NEW)
    assert not install.is_interrupted(pki)
    assert contents(pki)[places.KEY] == b"old"
    assert (tmp_path / "outside" / "cacert.pem").read_bytes() == b"old"


def test_no_room_for_the_decision_changes_nothing(pki, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(below, "write", full)
    with pytest.raises(OSError, match="No space left"):
        install.install(pki, NEW)
    assert contents(pki) == OLD


def test_no_room_after_the_decision_is_told_as_a_change_to_come(pki, monkeypatch):
    def fill():
        def full(root, path, *args, **more):
            raise OSError(28, "No space left on device", path)

        monkeypatch.setattr(below, "write", full)

    with monkeypatch.context() as patched:
        patched.setattr(install, "DECIDED", At(fill))
        with pytest.raises(install.NotComplete, match=r"not all are in place yet: certs/cacert\.pem: No space left"):
            install.install(pki, NEW)
    monkeypatch.undo()
    assert install.complete(pki)
    assert contents(pki) == NEW


def test_a_decision_that_was_taken_away_is_no_success(pki, monkeypatch):
    monkeypatch.setattr(install, "DECIDED", At(lambda: os.unlink(places.decision(pki))))
    with pytest.raises(install.DecisionLost):
        install.install(pki, NEW)


def test_two_commands_do_not_mix_their_files(pki):
    folder = os.open(pki, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(install.Busy):
            install.install(pki, NEW)
    finally:
        os.close(folder)
    assert contents(pki) == OLD

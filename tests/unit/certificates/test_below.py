# SPDX-License-Identifier: GPL-2.0-or-later
"""Files below a folder that another may write: nothing outside is read or changed, whatever was put on the way."""

import os
import stat

import pytest

from vdsm.certificates import below

US = {os.geteuid()}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "certs").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path / "root"


def test_folders_on_the_way_are_made(root):
    below.write(str(root), "a/b/file", b"new", 0o640, folders=0o700)
    assert (root / "a/b/file").read_bytes() == b"new"
    assert stat.S_IMODE((root / "a/b/file").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700


@pytest.mark.parametrize("path", ["link/file", "link/deeper/file"])
def test_nothing_is_written_through_a_linked_folder(root, path):
    (root / "link").symlink_to("../outside")
    with pytest.raises(below.NotAFolder, match=f"{root}/link is a symbolic link"):
        below.write(str(root), path, b"new", 0o644)
    assert os.listdir(root.parent / "outside") == ["secret"]


def test_nothing_is_written_above_the_folder(root):
    with pytest.raises(below.NotAFolder):
        below.write(str(root), "certs/../../outside/file", b"new", 0o644)
    assert os.listdir(root.parent / "outside") == ["secret"]


def test_a_folder_exchanged_after_it_was_opened_is_not_written_through(root, monkeypatch):
    real = os.open

    def exchanging(path, flags, *args, **more):
        if flags & os.O_EXCL and (root / "certs").is_dir() and not (root / "certs").is_symlink():
            os.rename(root / "certs", root / "away")
            (root / "certs").symlink_to("../outside")
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", exchanging)
    below.write(str(root), "certs/file", b"new", 0o644)
    assert os.listdir(root.parent / "outside") == ["secret"]
    assert os.listdir(root / "away") == ["file"]


def test_a_link_in_the_file_s_place_is_replaced_and_not_followed(root):
    (root / "certs" / "file").symlink_to("../../outside/secret")
    below.write(str(root), "certs/file", b"new", 0o644)
    assert not (root / "certs" / "file").is_symlink()
    assert (root.parent / "outside" / "secret").read_bytes() == b"secret"


def test_a_link_in_the_temporary_file_s_place_is_not_followed(root):
    (root / "certs" / ".file.new").symlink_to("../../outside/secret")
    below.write(str(root), "certs/file", b"new", 0o644)
    assert (root.parent / "outside" / "secret").read_bytes() == b"secret"


def test_what_fails_leaves_the_old_file_and_no_other(root, monkeypatch):
    (root / "certs" / "file").write_bytes(b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        below.write(str(root), "certs/file", b"new", 0o644)
    assert (root / "certs" / "file").read_bytes() == b"old"
    assert os.listdir(root / "certs") == ["file"]


def test_a_file_is_read(root):
    (root / "certs" / "file").write_bytes(b"text")
    assert below.read(str(root), "certs/file", US) == b"text"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda file: file.symlink_to("../../outside/secret"), "symbolic link"),
        (os.mkfifo, "no regular file"),
        (lambda file: file.mkdir(), "no regular file"),
        (lambda file: file.write_bytes(bytes(below.MAX_BYTES + 1)), "1048577 bytes"),
    ],
)
def test_what_is_no_sane_file_is_not_read(root, make, told):
    make(root / "certs" / "file")
    with pytest.raises(below.NotTaken, match=told):
        below.read(str(root), "certs/file", US)


def test_nothing_is_read_through_a_linked_folder(root):
    (root / "link").symlink_to("../outside")
    with pytest.raises(below.NotAFolder, match="link"):
        below.read(str(root), "link/secret", US)


def test_another_user_s_file_is_not_read(root):
    (root / "certs" / "file").write_bytes(b"text")
    with pytest.raises(below.NotTaken, match=f"user {os.geteuid()}, expected {os.geteuid() + 1}"):
        below.read(str(root), "certs/file", {os.geteuid() + 1})


def test_a_private_file_that_others_may_read_is_not_read(root):
    (root / "certs" / "file").write_bytes(b"text")
    (root / "certs" / "file").chmod(0o640)
    with pytest.raises(below.NotTaken, match="others may"):
        below.read(str(root), "certs/file", US, private=True)


def test_nothing_is_removed_through_a_linked_folder(root):
    (root / "link").symlink_to("../outside")
    with pytest.raises(below.NotAFolder):
        below.remove(str(root), "link/secret")
    assert os.listdir(root.parent / "outside") == ["secret"]

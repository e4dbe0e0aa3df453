# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may use a folder: modes, ACLs, and every folder above."""

from __future__ import annotations

import os
import pwd
import struct
from pathlib import Path

import pytest

from storage.access import ENTER, READ, Identity, Rights, decode_acl, may, qemu_identities, refused_at

QEMU = Identity("qemu", 107, frozenset({107, 36}))
BOTH = READ | ENTER


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        (Rights(0o755, 36, 36), True),
        (Rights(0o750, 36, 36), True),
        (Rights(0o740, 36, 36), False),
        (Rights(0o700, 36, 36), False),
        (Rights(0o755, 0, 0), True),
        (Rights(0o751, 0, 0), False),
        (Rights(0o705, 36, 36), False),  # the group's rights count, not the others'
        (Rights(0o077, 107, 0), False),  # the owner's count
        (Rights(0o500, 107, 0), True),
    ],
)
def test_modes(rights: Rights, allowed: bool) -> None:
    assert may(QEMU, rights, BOTH) is allowed


USER, OWNING_GROUP, GROUP, MASK, OTHER = 2, 4, 8, 16, 32


@pytest.mark.parametrize(
    ("acl", "allowed"),
    [
        ([(USER, 5, 107), (OWNING_GROUP, 0, 0), (MASK, 7, 0)], True),
        ([(USER, 5, 107), (OWNING_GROUP, 0, 0), (MASK, 4, 0)], False),
        ([(USER, 5, 108), (OWNING_GROUP, 0, 0), (MASK, 7, 0)], False),
        ([(USER, 0, 107), (GROUP, 7, 36), (MASK, 7, 0)], False),
        ([(OWNING_GROUP, 0, 0), (GROUP, 5, 36), (MASK, 7, 0)], True),
        ([(OWNING_GROUP, 0, 0), (GROUP, 5, 35), (MASK, 7, 0)], False),
        ([(OWNING_GROUP, 5, 0), (GROUP, 4, 36), (MASK, 7, 0)], False),
        ([(OWNING_GROUP, 0, 0), (GROUP, 5, 36), (MASK, 4, 0)], False),
    ],
)
def test_acls(acl: list[tuple[int, int, int]], allowed: bool) -> None:
    assert may(QEMU, Rights(0o770, 0, 0, tuple(acl)), BOTH) is allowed


def test_root_may_all() -> None:
    assert may(Identity("root", 0, frozenset()), Rights(0, 5, 5), BOTH)


@pytest.mark.parametrize("data", [b"", b"\x02", struct.pack("<I", 3) + b"x" * 8])
def test_an_acl_that_is_not_understood_is_none(data: bytes) -> None:
    assert decode_acl(data) == ()


def _other(path: Path) -> Identity:
    """Somebody who is neither owner nor in a group of ``path`` or of anything above it."""
    return Identity("stranger", 4_000_000, frozenset({4_000_000}))


def _open_up(path: Path) -> None:
    """pytest's folders are closed: those between the world and ``path`` get opened."""
    for folder in [path, *path.parents]:
        if folder.stat().st_uid == os.geteuid() and str(folder).count("/") > 1:
            folder.chmod(0o755)


def test_each_folder_above_must_be_entered(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "data"
    folder.mkdir(parents=True)
    _open_up(folder)
    assert refused_at(str(folder), _other(folder)) is None
    folder.chmod(0o711)
    assert refused_at(str(folder), _other(folder)) == (str(folder), "read and enter")
    folder.chmod(0o755)
    folder.parent.chmod(0o744)
    assert refused_at(str(folder), _other(folder)) == (str(folder.parent), "enter")
    folder.parent.chmod(0o711)
    assert refused_at(str(folder), _other(folder)) is None


def test_a_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "closed" / "data", tmp_path / "link"
    real.mkdir(parents=True)
    link.symlink_to(real)
    _open_up(real)
    real.parent.chmod(0o700)
    assert refused_at(str(link), _other(real)) == (str(real.parent), "enter")


def test_the_kernels_acl_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    _open_up(folder)
    entries = [(1, 7, -1), (USER, 5, 4_000_000), (OWNING_GROUP, 0, -1), (MASK, 5, -1), (OTHER, 0, -1)]
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(folder, "system.posix_acl_access", data)
    except OSError as e:
        pytest.skip(f"this file system has no ACLs: {e}")
    assert refused_at(str(folder), _other(folder)) is None
    assert refused_at(str(folder), Identity("b", 4_000_001, frozenset())) == (str(folder), "read and enter")


def test_qemu_is_whoever_of_its_users_this_host_has_with_all_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def user(name: str) -> pwd.struct_passwd:
        if name != "libvirt-qemu":
            raise KeyError(name)
        return pwd.struct_passwd((name, "x", 107, 36, "", "/", "/bin/false"))

    monkeypatch.setattr(pwd, "getpwnam", user)
    monkeypatch.setattr(os, "getgrouplist", lambda name, group: [group, 108] if name == "libvirt-qemu" else [])
    assert qemu_identities() == (Identity("libvirt-qemu", 107, frozenset({36, 108})),)


def test_qemu_has_either_name_by_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"qemu": 107, "libvirt-qemu": 64055}
    monkeypatch.setattr(pwd, "getpwnam", lambda n: pwd.struct_passwd((n, "x", users[n], 36, "", "/", "/bin/false")))
    monkeypatch.setattr(os, "getgrouplist", lambda _name, group: [group])
    assert [(who.name, who.uid) for who in qemu_identities()] == list(users.items())

# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel is told to take locks again that a server of NFS forgot."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from vdsm.root.server import lost_locks, mounts
from vdsm.root.server.mount_records import Record


@pytest.fixture
def parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "recover_lost_locks"
    path.write_text("N\n")
    monkeypatch.setattr(lost_locks, "PARAMETER", str(path))
    return path


@pytest.mark.parametrize(("vfs_type", "says"), [("nfs", "Y"), ("nfs4", "Y"), ("ext4", "N")])
def test_a_mount_of_nfs_turns_it_on(parameter: Path, vfs_type: str, says: str) -> None:
    mounts._see_to_locks(Record(spec="srv:/x", vfs_type=vfs_type, options=[]))
    assert parameter.read_text()[0] == says


def test_where_it_cannot_be_turned_on_the_log_says_what_follows(
    parameter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parameter.unlink()
    with caplog.at_level(logging.WARNING):
        lost_locks.take_again()
    assert "may stay paused" in caplog.text

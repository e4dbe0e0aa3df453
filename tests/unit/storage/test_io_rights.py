# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the server lets us write: a mount whose client answers from memory is played, its server by `os.chmod`."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.file.iohelper import requests, rights, serving
from vdsm.common import framing


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It can be opened for writing, whatever its server says."""
    monkeypatch.setattr(rights, "_remembers", lambda path: True)
    path = tmp_path / "ids"
    path.write_bytes(b"as it was")
    path.chmod(0o2640)
    return path


def server_says(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(rights.os, "chmod", refuse)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_the_server_refuses_is_refused_though_the_file_opens(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    server_says(number, monkeypatch)
    assert rights.refused(str(file)) == os.strerror(number)


def test_of_somebody_elses_file_only_read_only_is_believed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights.os, "geteuid", lambda: os.getuid() + 1)
    server_says(errno.EPERM, monkeypatch)
    assert rights.refused(str(file)) == ""
    server_says(errno.EROFS, monkeypatch)
    assert rights.refused(str(file)) == "Read-only file system"


def test_asking_changes_nothing_that_anybody_sees(file: Path) -> None:
    before = file.stat()
    assert rights.refused(str(file)) == ""
    after = file.stat()
    assert file.read_bytes() == b"as it was"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert after.st_ctime_ns > before.st_ctime_ns  # it was asked


def test_where_the_client_asks_by_itself_no_mode_is_set(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    server_says(errno.EROFS, monkeypatch)
    assert rights.refused(str(file)) == ""


def test_a_refusal_is_told_only_after_the_server_was_asked_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client remembers a refusal of a file until its mode is set, one of a folder until that is looked at."""
    asked: list[str] = []

    def remembering(call: Callable[..., Any], *names: str) -> Callable[..., Any]:
        def read(path: str, max_size: int) -> Any:
            if not set(names) <= set(asked):
                raise PermissionError(errno.EACCES, "refused", path)
            return call(path, max_size)

        return read

    monkeypatch.setattr(rights, "_ask", asked.append)
    status = rights._status
    monkeypatch.setattr(rights, "_status", lambda path: (asked.append(path), status(path))[1])
    opened = remembering(requests.read, str(file), str(file.parent))
    monkeypatch.setitem(serving.OPERATIONS, "read", opened)
    monkeypatch.setattr(serving, "_READING", (opened,))
    question = framing.encode_frame({"op": "read", "path": str(file), "max_size": 100})
    answers = io.BytesIO()
    serving.serve(io.BytesIO(question), answers)
    answers.seek(0)
    assert "pid" in framing.read_frame(answers)
    assert framing.read_frame(answers) == {"result": "YXMgaXQgd2Fz"}
    assert asked.index(str(file.parent)) < asked.index(str(file))

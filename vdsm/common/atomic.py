# SPDX-License-Identifier: GPL-2.0-or-later
"""Small local files that are either the old or the new text, also after a power cut.

For files of the host (/var/lib/vdsm, /run/vdsm) only: these calls block for the time of two
fsyncs. Files on shared storage go through the domain's I/O helper.
"""

from __future__ import annotations

import contextlib
import os
import tempfile


def write_atomic(
    path: str | os.PathLike[str], data: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Replace the file by ``data``: temporary file in the same folder, fsync, rename, fsync folder.

    ``owner`` is user and group; it stands before the file has its name.
    """
    folder, name = os.path.split(os.fspath(path))
    fd, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder or ".")
    try:
        with open(fd, "wb") as f:
            if owner is not None:
                os.fchown(f.fileno(), *owner)
            os.fchmod(f.fileno(), mode)
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_folder(folder or ".")


def remove_durably(path: str | os.PathLike[str]) -> None:
    """Remove the file, if it is there, so that it does not come back after a power cut."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        fsync_folder(os.path.dirname(os.fspath(path)) or ".")


def fsync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The file by which a document goes from script to script.

One temporary file for a whole run, mode 0600, in $TMPDIR or /tmp. A script may write it in place or put
another file under its name, so it is read by name, and only as a regular file of bounded size.

The runner holds a lock on the file. One that nobody holds was left by a runner that was killed; `sweep` removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import stat
import tempfile
from types import TracebackType

from vdsm.hooking.contents import MAX_BYTES
from vdsm.hooking.process import Identity

_PREFIX = "vdsm-hook-"


class UnreadableDocument(Exception):
    """What is wrong with the file that a script left."""


class Document:
    def __init__(self, text: str, identity: Identity | None = None) -> None:
        """``identity``: who must be able to read and write it, when not we ourselves."""
        fd, self.path = tempfile.mkstemp(prefix=_PREFIX)
        self._file = open(fd, "wb")  # noqa: SIM115 - open as long as the run, for its lock
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if identity is not None:
                os.fchown(fd, identity.uid, identity.gid)
            self._file.write(text.encode())
            self._file.flush()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Document:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # a script may have removed it, or made a directory of it: then nothing of ours is left
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):  # a full disk may make itself felt again
            self._file.close()

    def read(self) -> str:
        """Raises `UnreadableDocument`."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise UnreadableDocument("something that is no regular file in place of the document")
                data = file.read(MAX_BYTES + 1)
        except OSError as e:
            raise UnreadableDocument(f"no readable document ({e.strerror})") from None
        if len(data) > MAX_BYTES:
            raise UnreadableDocument(f"a document of more than {MAX_BYTES} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError as e:
            raise UnreadableDocument(f"a document that is not UTF-8 ({e})") from None


def sweep() -> None:
    """Remove documents of this user that a killed runner left."""
    for path in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            if os.lstat(path).st_uid != os.geteuid():
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            finally:
                os.close(fd)

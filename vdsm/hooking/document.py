# SPDX-License-Identifier: GPL-2.0-or-later
"""The file by which a document goes from script to script.

One temporary file for a whole run, mode 0600, in $TMPDIR or /tmp. A script may write it in place or put
another file under its name, so it is read by name, and only as a regular file of bounded size.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from types import TracebackType

from vdsm.hooking.contents import MAX_BYTES
from vdsm.hooking.process import Identity


class UnreadableDocument(Exception):
    """What is wrong with the file that a script left."""


class Document:
    def __init__(self, text: str, identity: Identity | None = None) -> None:
        """``identity``: who must be able to read and write it, when not we ourselves."""
        fd, self.path = tempfile.mkstemp(prefix="vdsm-hook-")
        with open(fd, "wb") as file:
            if identity is not None:
                os.fchown(file.fileno(), identity.uid, identity.gid)
            file.write(text.encode())

    def __enter__(self) -> Document:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # a script may have removed it, or made a directory of it: then nothing of ours is left
        with contextlib.suppress(OSError):
            os.unlink(self.path)

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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests read, carried out, answered, one after the other."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from storage.file.iohelper import long, requests, rights
from vdsm.common import framing

if TYPE_CHECKING:
    from collections.abc import Callable

_READING = (
    requests.read,
    requests.read_direct,
    requests.read_timed,
    requests.exists,
    requests.status,
    requests.list_folder,
    requests.list_matching,
    requests.space,
    requests.sync_folder,
    requests.forget_refusals,
)
_CHANGING = (
    requests.block_size,
    requests.write_atomic,
    requests.write_direct,
    requests.create,
    requests.truncate,
    requests.chmod,
    requests.make_folder,
    requests.make_folders,
    requests.rename,
    requests.relink,
    requests.remove,
    requests.remove_folder,
    long.remove_tree,
)

OPERATIONS: dict[str, Callable[..., Any]] = {call.__name__: call for call in (*_READING, *_CHANGING)}

# these tell how far they are
LONG: dict[str, Callable[..., Any]] = {call.__name__: call for call in (long.allocate, long.discard)}


def serve(incoming: BinaryIO, answers: BinaryIO) -> None:
    """Until the end of ``incoming``. The first frame out says that this process is ready, and which it is."""

    def send(answer: dict[str, Any]) -> None:
        answers.write(framing.encode_frame(answer))
        answers.flush()

    send({"pid": os.getpid()})
    while True:
        try:
            request = framing.read_frame(incoming)
        except EOFError:
            return
        op = request.pop("op")
        try:
            if op in LONG:
                result = LONG[op](**request, say=lambda done, size: send({"progress": [done, size]}))
            else:
                result = _small(OPERATIONS[op], request)
        except OSError as e:
            text = os.strerror(e.errno) if e.errno else str(e)
            send({"errno": e.errno or errno.EIO, "text": text, "path": e.filename or request.get("path", "")})
        else:
            send({"result": result})


def _small(call: Callable[..., Any], request: dict[str, Any]) -> Any:
    try:
        return call(**request)
    except PermissionError:
        if call not in _READING:
            raise
        rights.ask_anew(request["path"])
        return call(**request)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder name under ``mnt`` that stands for what is mounted there (storage.md 2.2).

It must be the field's, or one host would mount a domain twice while its agent changes hands. What is
mounted is ``host:[port:]path``, a local path, or any other name. The path loses doubled and last
slashes and ``.`` and ``..``; the root of a server keeps its slash: ``server:/`` is a path, ``server:`` none.
"""

from __future__ import annotations

import posixpath
import re

_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
_LAST_PORT = 65535

# hosts with their ports: a comma before the first slash
_MONITORS = re.compile(r"(?P<host>[^/]*,[^/]*:)(?P<path>/.*)\Z", re.DOTALL)


def normalise(spec: str) -> str:
    """``srv://a//b/../c/`` becomes ``srv:/a/c``."""
    if spec.startswith("/") or ":" not in spec:
        return _path(spec)
    monitors = _MONITORS.match(spec)
    if monitors is not None:
        return monitors["host"] + _path(monitors["path"])
    host, tail = _split(spec)
    if not host or not tail:
        return spec
    port, colon, rest = tail.partition(":")
    if colon and _is_port(port):
        return f"{host}:{port}:{_path(rest)}"
    return f"{host}:{_path(tail)}"


def mount_name(spec: str) -> str:
    """``srv:/export/my_dir`` becomes ``srv:_export_my__dir``: ``_`` doubled, then ``/`` to ``_``."""
    return normalise(spec).replace("_", "__").replace("/", "_")


def server_and_path(spec: str) -> tuple[str, str]:
    """``("srv", "/export")`` of ``srv:/export``; ``("", "")`` of what no server has. Brackets and ports stay."""
    if spec.startswith("/") or ":" not in spec:
        return "", ""
    return _split(spec)


def _split(spec: str) -> tuple[str, str]:
    """At the first colon, or the one behind an IPv6 address in brackets."""
    end = spec.find("]:") if spec.startswith("[") else -1
    at = end + 1 if end >= 0 else spec.index(":")
    return spec[:at], spec[at + 1 :]


def _is_port(text: str) -> bool:
    return _PORT.match(text) is not None and int(text) <= _LAST_PORT


def _path(path: str) -> str:
    path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path

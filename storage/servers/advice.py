# SPDX-License-Identifier: GPL-2.0-or-later
"""What mount(8) says of an export, and what somebody has to do about it. The words are those of nfs-utils."""

from __future__ import annotations

_ADVICE = (
    (
        "access denied by server",
        "the server does not export it to this host: add it to the exports, exportfs -ra",
    ),
    ("No such file or directory", "the server has no such export: compare with its exports"),
    ("Stale file handle", "the exported folder was replaced: exportfs -ra on the server"),
    ("Protocol not supported", "the server does not speak this version of NFS: choose another protocol_version"),
    ("requested NFS version", "the server does not speak this version of NFS: choose another protocol_version"),
    ("Connection refused", "the server's NFS service does not run"),
    ("statd", "start rpc-statd on this host, or connect without option 'lock'"),
    ("helper program", "install the NFS client on this host: nfs-common on Debian, nfs-utils elsewhere"),
    ("Operation not permitted", "the server takes no requests from this host's ports or with this sec="),
)


def with_advice(said: str) -> str:
    for words, advice in _ADVICE:
        if words in said:
            return f"{said} ({advice})"
    return said

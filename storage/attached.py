# SPDX-License-Identifier: GPL-2.0-or-later
"""A chain that can be used on this host: where QEMU finds each volume, and what stands at its beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Payload:
    path: str
    """What QEMU opens."""
    driver: str
    """QEMU's for that path: ``file``, ``host_device``."""
    size: int
    """Bytes, in whole sectors."""
    head: bytes
    """The first `storage.ondisk.qcow2.HEAD_SIZE` bytes, or as many as there are."""


@dataclass(frozen=True)
class AttachedChain:
    folder: str
    """In which each volume of the image lies by its id: what the run link points to, and what resolves the bare
    names of backing files."""
    payloads: Mapping[str, Payload]
    """By volume id."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder name under ``mnt`` that stands for what is mounted there."""

from __future__ import annotations

import re


def normalise(spec: str) -> str:
    """One slash where there are several, none at the end."""
    spec = re.sub(r"/{2,}", "/", spec)
    return spec if spec == "/" else spec.rstrip("/")


def mount_name(spec: str) -> str:
    """``srv:/export/my_dir`` becomes ``srv:_export_my__dir``: ``_`` doubled, then ``/`` to ``_``."""
    return normalise(spec).replace("_", "__").replace("/", "_")

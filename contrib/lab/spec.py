# SPDX-License-Identifier: GPL-2.0-or-later
"""What one private host is made of: chosen by the starter, read by the keeper and by the host's init."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"

# inside a host
PREFIX = "/usr/lib/vdsm"
PYTHON = f"{PREFIX}/.venv/bin/python"
CONTROL = "/run/lab.sock"
POSIX_IMAGE = "/srv/posixfs.img"
LOCAL_FOLDER = "/srv/local"
VDSM_UID = 36
KVM_GID = 36


@dataclass(frozen=True)
class HostSpec:
    name: str
    host_id: str
    address: str = "10.37.0.2/24"
    gateway: str = "10.37.0.1/24"
    mac: str = "52:54:00:37:00:02"
    # further lines for /etc/vdsm/vdsm.conf.d/50-lab.conf
    settings: str = ""
    # the starter cables the NICs; otherwise the host has one, with a gateway of its own at the other end
    cabled: bool = False
    # further lines of /etc/hosts
    neighbours: str = ""
    # folders of the machine that this host sees read-write: {inside: outside}
    shared: Mapping[str, str] = field(default_factory=dict)
    posix_image_bytes: int = 8 << 30
    local_image_bytes: int = 8 << 30

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> HostSpec:
        return cls(**json.loads(text))

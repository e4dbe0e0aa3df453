# SPDX-License-Identifier: GPL-2.0-or-later
"""Where VDSM keeps certificates (wire.md 1, deploy.md): names that installations, libvirt and QEMU know."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """PEM files: an authority, a certificate, its key."""

    name: str
    authority: str
    certificate: str
    key: str
    use: str

    def exists(self) -> bool:
        return any(os.path.exists(file) for file in (self.certificate, self.key))


def host(pki: str) -> Place:
    """The agent's own pair: server on the engine's port, client of other hosts."""
    return Place(
        "vdsm",
        os.path.join(pki, "certs", "cacert.pem"),
        os.path.join(pki, "certs", "vdsmcert.pem"),
        os.path.join(pki, "keys", "vdsmkey.pem"),
        "the agent's port, calls to other hosts",
    )


def known(pki: str) -> list[Place]:
    """The agent's pair first, then those of its neighbours; these are looked at where they exist."""
    return [
        host(pki),
        *(
            Place(
                f"libvirt-{name}",
                os.path.join(pki, f"libvirt-{name}", "ca-cert.pem"),
                os.path.join(pki, f"libvirt-{name}", "server-cert.pem"),
                os.path.join(pki, f"libvirt-{name}", "server-key.pem"),
                use,
            )
            for name, use in (
                ("spice", "SPICE consoles"),
                ("vnc", "VNC consoles"),
                ("migrate", "encrypted migration"),
            )
        ),
    ]


def request_folder(pki: str) -> str:
    """Key and signing request that wait for their certificate."""
    return os.path.join(pki, "requests")


def lab_authority_folder(pki: str) -> str:
    """An authority of our own, on hosts without an engine."""
    return os.path.join(pki, "lab-ca")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where VDSM keeps certificates (wire.md 1, deploy.md): names that installations, libvirt and QEMU know."""

from __future__ import annotations

import os
from dataclasses import dataclass

from vdsm.common.paths import Paths

# below the folder
AUTHORITY, CERTIFICATE, KEY = "certs/cacert.pem", "certs/vdsmcert.pem", "keys/vdsmkey.pem"
# an authority of our own, on hosts without an engine
LAB_AUTHORITY, LAB_KEY = "lab-ca/cacert.pem", "lab-ca/cakey.pem"
# key and signing request that wait for their certificate
WAITING_KEY, WAITING_REQUEST = "requests/vdsmkey.pem", "requests/vdsmcert.csr"


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
        os.path.join(pki, AUTHORITY),
        os.path.join(pki, CERTIFICATE),
        os.path.join(pki, KEY),
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


def decision(pki: str) -> str:
    """The file of a change that is to be completed (`install`): only root writes where the host's own lies.

    Another folder, of a test or a lab, has its own: whoever runs commands there owns what they decide.
    """
    paths = Paths()
    if os.path.realpath(pki) == os.path.realpath(paths.pki):
        return os.path.join(paths.root_state, "certificates", "decision")
    return os.path.join(pki, ".decision")

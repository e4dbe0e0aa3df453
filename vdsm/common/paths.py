# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things lie on a host. The defaults are contracts; tests move them elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Paths:
    repository: str = "/rhev/data-center"
    run: str = "/run/vdsm"
    state: str = "/var/lib/vdsm"
    etc: str = "/etc/vdsm"
    usr_lib: str = "/usr/lib/vdsm"
    log: str = "/var/log/vdsm"
    hooks: str = "/usr/libexec/vdsm/hooks"
    # certificates: certs/ and keys/ below it
    pki: str = "/etc/pki/vdsm"
    # the root helper's own records: writable by root only
    root_state: str = "/var/lib/vdsm-root"
    root_run: str = "/run/vdsm-root"

    @property
    def socket(self) -> str:
        """The agent's unix socket: HTTP and WebSocket, identity by peer credentials."""
        return os.path.join(self.run, "vdsm.sock")

    @property
    def root_socket(self) -> str:
        return os.path.join(self.root_run, "root.sock")

    @property
    def mounts(self) -> str:
        return os.path.join(self.repository, "mnt")

    @property
    def state_folders(self) -> tuple[str, ...]:
        """The agent's own below `state`, which is root's: records of VMs, traces of hooks, the host's identity."""
        return tuple(os.path.join(self.state, name) for name in ("vms", "hooks", "identity"))

    @property
    def storage_run(self) -> str:
        """Run links of prepared images: /run/vdsm/storage/<sd>/<img>."""
        return os.path.join(self.run, "storage")

    @property
    def connections(self) -> str:
        """Records of connected storage servers, for people."""
        return os.path.join(self.run, "connections")

    @property
    def host_id_file(self) -> str:
        return os.path.join(self.etc, "vdsm.id")

    @property
    def commands(self) -> str:
        """Records of running command groups, read at start to kill what a killed agent left."""
        return os.path.join(self.run, "commands")

    @property
    def agent_lock(self) -> str:
        return os.path.join(self.run, "agent.lock")

    @property
    def spm_lock(self) -> str:
        return os.path.join(self.run, "spm.lock")

    @property
    def once_lock(self) -> str:
        return os.path.join(self.run, "once.lock")

    @property
    def leased(self) -> str:
        """Which process took the lease of a domain last on this host."""
        return os.path.join(self.run, "leased")

    @property
    def root_lock(self) -> str:
        return os.path.join(self.root_run, "helper.lock")

    @property
    def root_staging(self) -> str:
        """Where root mounts first; only root can enter it."""
        return os.path.join(self.root_run, "staging")

    @property
    def root_commands(self) -> str:
        return os.path.join(self.root_run, "commands")

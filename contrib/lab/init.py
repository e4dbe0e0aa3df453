# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's PID 1: builds the host around itself, then supervises it. Its death is the host's power cut.

Started by the keeper in fresh namespaces; its standard input holds the `HostSpec`, its standard output gets one line:
``ready`` or ``failed: <why>``. Order: root, accounts and folders, network, daemons (all at once), control socket.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from contrib.lab import furnish, kernel_calls, rootfs
from contrib.lab.spec import HostSpec
from contrib.lab.supervisor import Supervisor


def main() -> None:
    spec = HostSpec.from_json(sys.stdin.read())
    supervisor = Supervisor()
    try:
        os.umask(0o022)
        capabilities = furnish.read_tree(furnish.LIBVIRT_CACHE)
        rootfs.enter(spec)
        qemu_user = furnish.furnish(spec, capabilities)
        images = furnish.start_image_makers(spec)
        if not spec.cabled:
            _connect(spec, supervisor)
        furnish.start_daemons(spec, supervisor)
        furnish.finish_images(images)
        print(f"host {spec.name} is up, QEMU runs as {qemu_user}", file=sys.stderr)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        print(f"failed: {error}", flush=True)
        sys.exit(1)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    supervisor.serve(lambda: print("ready", flush=True))


def _connect(spec: HostSpec, supervisor: Supervisor) -> None:
    """eth0 with its address; its other end lies in a network namespace of its own, so the machine shows neither."""
    # a NIC made in the machine's namespace, even for a moment, would wake its network services
    peer = supervisor.start(["unshare", "--net", "--", "sleep", "infinity"], log="/var/log/lab-peer.log")
    Path("/run/lab-peer.pid").write_text(str(peer))
    own = Path("/proc/self/ns/net").readlink()
    furnish.until("the peer's network namespace", lambda: Path(f"/proc/{peer}/ns/net").readlink() != own)
    _ip(
        "link set lo up",
        f"link add eth0 address {spec.mac} type veth peer name uplink netns {peer}",
        f"address add {spec.address} dev eth0",
        "link set eth0 up",
        f"route add default via {spec.gateway.split('/')[0]}",
    )
    _ip("link set lo up", f"address add {spec.gateway} dev uplink", "link set uplink up", inside=peer)


def _ip(*commands: str, inside: int | None = None) -> None:
    where = [] if inside is None else ["nsenter", "-t", str(inside), "-n", "--"]
    subprocess.run([*where, "ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


if __name__ == "__main__":
    kernel_calls.die_with_parent()
    main()

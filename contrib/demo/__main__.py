# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.demo [--shell] [--picture FILE]``: exit code 0 when every step was proved, 130 after Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from contrib.demo.story import Demo
from contrib.demo.telling import Story, console
from contrib.lab.control import HostFailed
from contrib.lab.guest import prepare
from contrib.lab.host import PrivateHost
from contrib.lab.kernels import KernelMissing
from vdsm.client import ClientError

SHELL_HELP = """\
You are root on the private host. Try:
    vdsm status
    vdsm call Host.getCapabilities
    vdsm events --follow
    vdsm hooks trace
    virsh list
    tail -f /var/log/libvirt/qemu/demo-vm-serial.log
Leave the shell (exit) and everything is removed.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--shell", action="store_true", help="stop at the running VM and open a shell on the host")
    parser.add_argument("--without-network", action="store_true", help="for machines whose kernel has no bridges")
    parser.add_argument("--picture", type=Path, help="also save the output as an SVG file")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("the demo must be root: it makes namespaces, mounts and a bridge (try: sudo ./run demo)", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _stop)
    story = Story(console(record=options.picture is not None))
    try:
        _tell(story, shell=options.shell, networked=not options.without_network)
    except KeyboardInterrupt:
        print("\ninterrupted: everything was removed", file=sys.stderr)
        return 130
    except (HostFailed, KernelMissing, ClientError, TimeoutError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    if options.picture is not None:
        story.save_picture(options.picture, "./run demo")
    return 0


def _tell(story: Story, *, shell: bool, networked: bool) -> None:
    story.title("A KVM host and its agent, from nothing to a running VM and back")
    host = PrivateHost(f"demo-{os.getpid()}")
    try:
        with story.step("Start a private host: own processes, network, mounts, cgroups, libvirtd and sanlock"):
            guest = prepare()
            host.start()
            host.start_agent()
            story.say(f"host {host.spec.name} ({host.spec.host_id}); agent as user 36, root helper beside it")
        demo = Demo(story, host, guest, networked=networked)
        asyncio.run(_build(demo))
        if shell:
            story.say("")
            story.say(SHELL_HELP)
            _shell(host)
        else:
            asyncio.run(_finish(demo))
        with story.step("Remove the host"):
            host.stop()
            story.say("no process, namespace, mount, bridge, loop device or cgroup is left")
    except (HostFailed, ClientError, TimeoutError, OSError):
        _keep_logs(story, host)
        raise
    finally:
        host.stop()
    story.summary("The demo is done.")


async def _build(demo: Demo) -> None:
    async with demo.host.client() as client:
        await demo.build(client)


async def _finish(demo: Demo) -> None:
    await demo.survive()
    async with demo.host.client() as client:
        await demo.take_down(client)


def _shell(host: PrivateHost) -> None:
    env = {
        "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": os.environ.get("TERM", "dumb"),
        "HOME": "/root",
    }
    argv = ["env", "-i", *[f"{name}={value}" for name, value in env.items()], r"PS1=[\h]# "]
    # a terminal of the host's own: job control needs a session inside its process namespace
    argv += ["script", "-q", "-e", "-c", "bash --norc -i", "/dev/null"]
    # Ctrl-C belongs to the shell's commands, not to us; an ignored signal would stay ignored in them
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        subprocess.run([*host.command(argv)], check=False)
    finally:
        signal.signal(signal.SIGINT, previous)


def _keep_logs(story: Story, host: PrivateHost) -> None:
    folder = Path("logs/demo").absolute()
    if host.pid:
        host.collect_logs(folder)
        story.say(f"the host's logs are in {folder}")


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-or-later
"""A private host: one hypervisor in namespaces of this machine, driven from outside.

    with PrivateHost() as host:          # about 2 s
        host.start_agent()
        async with host.client() as client: ...

The host ends with the `with` block, with the starter (however that dies), or by `python -m contrib.lab down --all`.
Processes started through `start_process` belong to the host (its PID 1, its cgroups); those of `run` only enter
its namespaces.
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contrib.lab import registry
from contrib.lab.agent_life import ROOT_LOG, AgentLife
from contrib.lab.control import Control, HostFailed
from contrib.lab.spec import CACHE, CHECKOUT, CONTROL, HostSpec

LIBVIRT_CACHE = "/var/cache/libvirt/qemu/capabilities"
LOGS = (
    "/var/log/vdsm",
    "/var/log/libvirt",
    "/var/log/lab.log",
    "/var/log/sanlock.log",
    "/var/log/sanlock.out",
    ROOT_LOG,
)


class PrivateHost(AgentLife):
    def __init__(self, name: str | None = None, **fields: Any) -> None:
        """``fields`` are those of `HostSpec`: settings, shared, address, ..."""
        host_id = str(uuid.uuid4())
        self.spec = HostSpec(name=name or f"host-{secrets.token_hex(3)}", host_id=host_id, **fields)
        super().__init__()
        self.pid = 0
        self._keeper: subprocess.Popen[str] | None = None
        self._control: Control | None = None

    @classmethod
    def attached(cls, name: str, pid: int, host_id: str) -> Self:
        """A running host of another process, to look at and to work in; only its own starter can stop it."""
        host = cls(name)
        host.spec = replace(host.spec, host_id=host_id)
        host.pid = pid
        host._control = Control(str(host.path(CONTROL)))
        return host

    # -- life

    def start(self) -> Self:
        """Make the host with its daemons; no agent yet. Raises HostFailed."""
        if os.geteuid() != 0:
            raise HostFailed("a private host needs root: namespaces, mounts and user 36 are made for real")
        registry.sweep(also_living=False)
        compile_checkout()
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "contrib.lab.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
        )
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        try:
            self._keeper.stdin.write(self.spec.to_json() + "\n")
            self._keeper.stdin.flush()
            answer = self._keeper.stdout.readline().strip()
        except BaseException:
            self.stop()
            raise
        if not answer.startswith("ready "):
            _, errors = self._keeper.communicate(timeout=30)
            raise HostFailed(f"host {self.spec.name} did not start: {answer or 'its keeper died'}\n{errors}".strip())
        self.pid = int(answer.split()[1])
        self._control = Control(str(self.path(CONTROL)))
        return self

    def stop(self) -> None:
        """The host's power cut; returns once nothing of it is left. Raises HostFailed if something stays."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        if self.pid:
            self._save_libvirt_cache()
        assert keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            keeper.stdin.close()
        keeper.stdin = None
        _, errors = keeper.communicate(timeout=30)
        self.pid = 0
        self.forget_agent()
        if keeper.returncode != 0:
            raise HostFailed(f"host {self.spec.name} ended badly: {errors}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- processes

    def _run(
        self, argv: Sequence[str], user: str, stdin: bytes, timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(argv, user=user), input=stdin, capture_output=True, timeout=timeout_s, check=False
        )

    def run_outside(self, argv: Sequence[str], **keywords: object) -> subprocess.CompletedProcess[bytes]:
        """Run a command at the far end of the host's cable (its network's gateway)."""
        peer = self.path("/run/lab-peer.pid").read_text()
        return self.run(["nsenter", "-t", peer, "-n", "--", *argv], **keywords)  # type: ignore[arg-type]

    def command(self, argv: Sequence[str], *, user: str = "root") -> list[str]:
        """The command line that runs ``argv`` inside the host, for callers that start processes themselves."""
        identity = ["--reuid", "36", "--regid", "36", "--init-groups"] if user == "vdsm" else []
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        return [*enter, "setpriv", *identity, "--pdeathsig", "KILL", "--", *argv]

    @property
    def control(self) -> Control:
        if self._control is None:
            raise HostFailed(f"host {self.spec.name} is not up")
        return self._control

    def path(self, inside: str) -> Path:
        """A path inside the host, as this process can open it. Symlinks in it are the host's."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def outer_pid(self, inner: int) -> int:
        """The machine's number of a process of the host; 0 when there is none."""
        namespace = os.stat(f"/proc/{self.pid}/ns/pid").st_ino
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                numbers = re.search(r"^NSpid:\s+(.*)$", Path(f"/proc/{entry}/status").read_text(), re.MULTILINE)
                is_it = numbers is not None and int(numbers[1].split()[-1]) == inner
                if is_it and os.stat(f"/proc/{entry}/ns/pid").st_ino == namespace:
                    return int(entry)
        return 0

    # -- for `AgentLife`

    def answers(self, inside: str) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.path(inside)))
            except OSError:
                return False
        return True

    def outer_socket(self, inside: str) -> str:
        return str(self.path(inside))

    def tail(self, log: str) -> str:
        with contextlib.suppress(OSError):
            return self.path(log).read_text(errors="replace")[-3000:]
        return ""

    # -- evidence

    def collect_logs(self, folder: Path) -> None:
        """Copy the host's logs out."""
        folder.mkdir(parents=True, exist_ok=True)
        for inside in LOGS:
            source = self.path(inside)
            with contextlib.suppress(OSError, shutil.Error):
                if source.is_dir():
                    shutil.copytree(source, folder / source.name, dirs_exist_ok=True)
                else:
                    shutil.copy(source, folder)

    # -- inside

    def _save_libvirt_cache(self) -> None:
        """Keep libvirt's answers about this QEMU for the next host: probing costs a second."""
        target = CACHE / "libvirt-capabilities"
        source = self.path(LIBVIRT_CACHE)
        with contextlib.suppress(OSError):
            target.mkdir(parents=True, exist_ok=True)
            for entry in source.iterdir():
                if not (target / entry.name).exists():
                    shutil.copy(entry, target / entry.name)


def describe(host: PrivateHost) -> str:
    return json.dumps({"name": host.spec.name, "pid": host.pid, "host_id": host.spec.host_id})


def compile_checkout() -> None:
    """User 36 can't write byte code into the read-only checkout: have it fresh beforehand."""
    for package in ("vdsm", "storage", "network", "contrib"):
        if (CHECKOUT / package).is_dir():
            compileall.compile_dir(CHECKOUT / package, quiet=2, workers=1)

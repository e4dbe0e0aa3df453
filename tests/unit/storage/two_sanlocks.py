# SPDX-License-Identifier: GPL-2.0-or-later
"""Two sanlock daemons, each with a client of its own: two hosts that share a folder. No privileges needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

IO_TIMEOUT_S = 1
MIB = 1 << 20


def missing() -> str:
    """Why this cannot run here; empty when it can."""
    if shutil.which("sanlock") is None:
        return "sanlock is not installed"
    try:
        import sanlock  # noqa: F401
    except ImportError:
        return "the Python binding of sanlock is not installed"
    return ""


class SanlockHost:
    """One daemon; clients run in processes of their own, since the library reads its folder's name once."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.environment = {**os.environ, "SANLOCK_PRIVILEGED": "0", "SANLOCK_RUN_DIR": str(self.folder)}
        argv = ["sanlock", "daemon", "-D", "-w", "0", "-h", "0", "-l", "0", "-L", "-1", "-e", name]
        with open(self.folder / "log", "w") as log:
            self.daemon = subprocess.Popen(argv, env=self.environment, stdout=log, stderr=log)
        self.clients: list[subprocess.Popen[str]] = []

    def wait(self) -> None:
        deadline = time.monotonic() + 10
        while not (self.folder / "sanlock.sock").exists():
            assert self.daemon.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def start(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        client = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(arguments)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.clients.append(client)
        return client

    def pause(self) -> None:
        self.daemon.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.daemon.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for client in self.clients:
            client.kill()
            client.communicate()
        self.daemon.send_signal(signal.SIGCONT)
        self.daemon.kill()
        self.daemon.wait()


def line_of(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return client.stdout.readline().strip()


def tell(client: subprocess.Popen[str], word: str) -> None:
    assert client.stdin is not None
    client.stdin.write(word + "\n")
    client.stdin.flush()


def make_areas(folder: Path, name: str, leases: int = 4) -> tuple[str, str]:
    """Empty files for a lockspace and for leases."""
    paths = (str(folder / f"{name}.ids"), str(folder / f"{name}.leases"))
    for path, size in zip(paths, (MIB, (leases + 1) * MIB), strict=True):
        with open(path, "wb") as f:
            f.truncate(size)
    return paths

# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts and a network of a test's own, and a mount(8) that needs no server and no disk."""

import contextlib
import ctypes
import os
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass

import pytest

from vdsm.common import commands
from vdsm.common.paths import Paths
from vdsm.root.server import folders, mount_users
from vdsm.root.server.registry import Helper
from vdsm.root.server.verbs import PARTS

assert PARTS  # their verbs are declared

CLONE_NEWNS, CLONE_NEWNET, MS_REC, MS_PRIVATE = 0x20000, 0x40000000, 1 << 14, 1 << 18


def _checked(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def namespace(kind, flag):
    """Of this thread, and of what it starts from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)
    if libc.unshare(flag) != 0:
        pytest.skip("needs root: namespaces")
    try:
        yield libc
    finally:
        # refused while a thread that was begun in there (asyncio has one for each child) has not quite ended
        until = time.monotonic() + 30
        while libc.setns(outside, flag) != 0:
            assert time.monotonic() < until, os.strerror(ctypes.get_errno())
            time.sleep(0.001)
        os.close(outside)


@pytest.fixture
def own_mounts():
    """What the test mounts is seen by nobody else, and ends with it."""
    here = os.getcwd()
    with namespace("mnt", CLONE_NEWNS) as libc:
        _checked(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
        yield
    os.chdir(here)


@pytest.fixture
def own_network(own_mounts):
    """A network of the test's own, with nothing but a loopback."""
    with namespace("net", CLONE_NEWNET):
        subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
        yield


@pytest.fixture
def own_folder():
    """Not pytest's: user 36 must reach what is mounted below."""
    with tempfile.TemporaryDirectory(prefix="vdsm-root-") as folder:
        os.chmod(folder, 0o755)
        yield folder


@pytest.fixture
def helper(own_folder, own_mounts):
    paths = Paths(
        repository=f"{own_folder}/rhev/data-center",
        run=f"{own_folder}/run/vdsm",
        state=f"{own_folder}/lib/vdsm",
        log=f"{own_folder}/log/vdsm",
        hooks=f"{own_folder}/hooks",
        root_state=f"{own_folder}/lib/vdsm-root",
        root_run=f"{own_folder}/run/vdsm-root",
    )
    folders.prepare_own(paths)
    helper = Helper(paths, 36, 36)
    folders.prepare(helper)
    return helper


@dataclass
class Program:
    """``mount`` of the helper's PATH: it writes down what it was asked, and mounts a tmpfs with ``options``."""

    folder: str
    options: str = "mode=0770,uid=36,gid=36"

    def write(self, instead=""):
        script = f"""#!/bin/sh
echo run >> {self.folder}/runs
printf '%s\\n' "$@" > {self.folder}/asked
for place; do :; done
stat -c %a "$place/.." "$place/../.." > {self.folder}/modes
cp "$(dirname "$place")"/credentials "$(dirname "$place")"/secretfile {self.folder} 2>/dev/null
{instead or f'exec /bin/mount -t tmpfs -o {shlex.quote(self.options)} ours "$place"'}
"""
        with open(f"{self.folder}/mount", "w") as f:
            f.write(script)
        os.chmod(f"{self.folder}/mount", 0o755)

    def told(self, name):
        with open(f"{self.folder}/{name}") as f:
            return f.read().splitlines()

    @property
    def runs(self):
        return len(self.told("runs")) if os.path.exists(f"{self.folder}/runs") else 0


@pytest.fixture
def program(tmp_path, monkeypatch):
    made = Program(str(tmp_path))
    made.write()
    monkeypatch.setattr(mount_users, "QEMU_USERS", ())  # whatever users this machine has
    monkeypatch.setattr(commands, "PATH", f"{tmp_path}:{commands.PATH}")
    return made

# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts with kernels of their own, and shared storage, for tests.

san      two hosts, a storage server and a LUN that both hosts share; one for the session
hosts    the two hosts
lun      the shared LUN's device, the same path on both hosts; empty before each test
iscsi    the server's portals, LUN names and CHAP names; sessions are closed after each test
nfs      {version: "server:/path"}
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contrib.lab import kernels
from contrib.lab.microvm import initiator, layer, storage_server
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import SERVER, San, address
from contrib.lab.microvm.storage_server import NFS_PATHS, Chap
from tests import groups
from tests.failure_logs import skip_unless, watched
from tests.soak import SOAK

# a test's own work takes seconds, the boots before it up to minutes on a busy machine
TIMEOUT_S = 300
ISCSI_LUNS = ("gold", "silver")
LUN_BYTES = 1 << 30


def _lacking() -> str:
    if os.geteuid() != 0:
        return "needs root: taps, mounts and QEMU over the machine's own files"
    if not shutil.which("qemu-system-x86_64"):
        return "needs qemu-system-x86_64"
    try:
        kernels.find("lab")
        layer.find()
    except (kernels.KernelMissing, layer.LayerMissing) as error:
        return str(error)
    return ""


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = _lacking()
    skip_unless(items, folder="tests/lab/", reason=lacking, possible=not lacking)
    groups.deal(items, "tests/lab/", _group)
    for item in items:
        if "tests/lab/" in item.nodeid and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def _group(item: pytest.Item) -> str:
    """Tests that share booted hosts run in one process."""
    if "san" in getattr(item, "fixturenames", ()):
        return "san"
    if "survivor" in getattr(item, "fixturenames", ()) and SOAK:
        return "cuts-create" if "is_created" in item.name else "cuts-others"
    return item.path.stem


@pytest.fixture(scope="session")
def san() -> Iterator[San]:
    with San(hosts=2, luns=1) as san, watched(san.server, *san.hosts):
        yield san


@pytest.fixture
def hosts(san: San) -> list[MicroHost]:
    return san.hosts


@pytest.fixture
def lun(san: San) -> Iterator[str]:
    device = f"/dev/disk/by-id/wwn-{san.luns[0].wwn}"
    yield device
    for host in san.hosts:
        # the other host made or removed what this one still knows
        host.run(["sh", "-c", "vgchange -an --select 'vg_name=~^lab' >/dev/null 2>&1; true"])
    san.hosts[0].run(["wipefs", "-qaf", device])
    san.hosts[0].run(["dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=4", "oflag=direct"])


@dataclass(frozen=True)
class Iscsi:
    portals: tuple[str, str]
    chap: Chap
    luns: tuple[str, ...]


@pytest.fixture(scope="session")
def _iscsi(san: San) -> Iscsi:
    chap = Chap()
    portals = (f"{address('san-a', SERVER)}:3260", f"{address('san-b', SERVER)}:3260")
    devices = [storage_server.make_lun(san.server, name, LUN_BYTES) for name in ISCSI_LUNS]
    storage_server.serve_iscsi(san.server, devices, portals, chap)
    for host in san.hosts:
        initiator.start_iscsi(host)
    return Iscsi(portals, chap, ISCSI_LUNS)


@pytest.fixture
def iscsi(san: San, _iscsi: Iscsi) -> Iterator[Iscsi]:
    yield _iscsi
    for host in san.hosts:
        initiator.log_out(host)


@pytest.fixture(scope="session")
def nfs(san: San) -> dict[str, str]:
    storage_server.serve_nfs(san.server)
    for host in san.hosts:
        storage_server.start_lock_daemons(host)
    return {version: f"{address('san-a', SERVER)}:{path}" for version, path in NFS_PATHS.items()}

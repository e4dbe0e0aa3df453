# SPDX-License-Identifier: GPL-2.0-or-later
"""Real hosts for tests: namespaces of this machine with libvirt, sanlock and the agent as its own processes.

    host         a host without agent; one for each module
    agent_host   the same host with its agent (and root helper) running; started again if a test killed it
    client       calls to that agent, connected through its unix socket
    pool         a POSIXFS domain, pool and SPM role on that host; one for each module
    local_pool   the same on a host of its own with a LOCALFS domain
    fresh_host   a host without agent for one test
    guest        kernel and initial RAM file system for VMs

    cluster        three hosts without agents on common networks; one for each module
    hosts          the three
    shared_folder  a folder, the same file system on each of the three, for one test

When a test fails, the logs of its hosts are copied to logs/<test>/<host>/.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from contrib.lab import engine
from contrib.lab.cluster import SHARED_IMAGE, Cluster
from contrib.lab.guest import Guest, prepare
from contrib.lab.host import PrivateHost
from tests import groups
from tests.failure_logs import skip_unless, watched
from vdsm.client import Client

CLUSTER_MODULES = ("test_cluster", "test_lab_cli", "test_faults")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "needs root: real namespaces, mounts and users"
    skip_unless(items, folder="tests/hosts/", reason=reason, possible=os.geteuid() == 0)
    groups.deal(items, "tests/hosts/", lambda item: "clusters" if _is_of_a_cluster(item) else item.path.stem)


def _is_of_a_cluster(item: pytest.Item) -> bool:
    """These wait more than they compute, and three hosts at once are enough: one process has them."""
    return "cluster" in getattr(item, "fixturenames", ()) or item.path.stem in CLUSTER_MODULES


def _running(host: PrivateHost) -> Iterator[PrivateHost]:
    with host, watched(host):
        yield host


def _new_pool(host: PrivateHost, domain_type: int) -> engine.Pool:
    async def make() -> engine.Pool:
        async with host.client() as client:
            return await engine.new_pool(client, domain_type=domain_type)

    # a thread of its own: this fixture outlives the loop of the test that first asks for it
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, make()).result()


@pytest.fixture(scope="module")
def host() -> Iterator[PrivateHost]:
    yield from _running(PrivateHost())


@pytest.fixture
def fresh_host() -> Iterator[PrivateHost]:
    yield from _running(PrivateHost())


@pytest.fixture
def agent_host(host: PrivateHost) -> PrivateHost:
    if not host.agent_lives:
        host.start_agent()
    return host


@pytest.fixture
async def client(agent_host: PrivateHost) -> AsyncIterator[Client]:
    async with agent_host.client() as client:
        yield client


@pytest.fixture(scope="module")
def _module_pool(host: PrivateHost) -> engine.Pool:
    if not host.agent_lives:
        host.start_agent()
    return _new_pool(host, engine.POSIXFS)


@pytest.fixture
def pool(agent_host: PrivateHost, _module_pool: engine.Pool) -> engine.Pool:
    return _module_pool


@pytest.fixture(scope="module")
def local_pool_host() -> Iterator[PrivateHost]:
    for host in _running(PrivateHost()):
        host.start_agent()
        yield host


@pytest.fixture(scope="module")
def local_pool(local_pool_host: PrivateHost) -> engine.Pool:
    return _new_pool(local_pool_host, engine.LOCALFS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(hosts=3) as cluster, watched(*cluster.hosts):
        yield cluster


@pytest.fixture
def hosts(cluster: Cluster) -> list[PrivateHost]:
    return cluster.hosts


@pytest.fixture
def shared_folder(hosts: list[PrivateHost]) -> Iterator[str]:
    folder = "/mnt/shared"
    for host in hosts:
        host.run(["sh", "-c", f"mkdir -p {folder}; mount -o loop {SHARED_IMAGE} {folder}"])
    yield folder
    for host in hosts:
        host.run(["umount", folder])


@pytest.fixture(scope="session")
def guest() -> Guest:
    return prepare()

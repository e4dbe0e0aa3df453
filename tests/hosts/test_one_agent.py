# SPDX-License-Identifier: GPL-2.0-or-later
"""A second agent or root helper on a host says who runs and ends; the first one notices nothing."""

from __future__ import annotations

import subprocess

import pytest
from storage_flows import spm_pid

from contrib.lab import engine
from contrib.lab.agent_life import AGENT_SOCKET, ROOT_SOCKET
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON
from vdsm.client import Client


def second(host: PrivateHost, *words: str, user: str) -> subprocess.CompletedProcess[bytes]:
    return host.run([PYTHON, "-m", *words], user=user, check=False, timeout_s=30)


@pytest.mark.cost(6)
async def test_a_second_agent_leaves_the_first_and_its_spm_process_alone(
    agent_host: PrivateHost, pool: engine.Pool, client: Client
) -> None:
    pid, spm = agent_host.agent_pid, spm_pid(agent_host)
    assert spm
    before = spm, agent_host.path(AGENT_SOCKET).stat().st_ino
    ended = second(agent_host, "vdsm.cli", "serve", user="vdsm")
    assert ended.returncode == 75
    assert ended.stderr.count(b"\n") == 1 and f"process {pid} holds".encode() in ended.stderr
    assert (spm_pid(agent_host), agent_host.path(AGENT_SOCKET).stat().st_ino) == before
    assert await client.call("Host.ping2") is True


@pytest.mark.cost(2)
async def test_a_second_root_helper_leaves_the_first_alone(agent_host: PrivateHost, client: Client) -> None:
    pid, socket = agent_host.root_pid, agent_host.path(ROOT_SOCKET).stat().st_ino
    ended = second(agent_host, "vdsm.root.server", user="root")
    assert ended.returncode == 75
    assert ended.stderr.count(b"\n") == 1 and f"process {pid} holds".encode() in ended.stderr
    assert agent_host.path(ROOT_SOCKET).stat().st_ino == socket
    assert "nics" in await client.call("Host.getCapabilities")

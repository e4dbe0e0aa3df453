# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong input to every verb of the API: refused by name, and nothing happens.

For each verb of the registry and each of its parameters: missing, of a wrong type, a path instead of an id, 10 MiB of
text; and a parameter that nobody knows. The agent stays up, and neither the storage domain nor the host's own
state changes by a byte.
"""

import functools
import hashlib
import os
import stat

import pytest

from contrib.lab.wrong_input import wrong_inputs
from tests.soak import SOAK
from vdsm.api import registry
from vdsm.client import RpcError

VERBS = registry.load()
INVALID_PARAMS = -32602

# written by sanlock's renewals and by who polls for mail, whatever the API does
ALIVE = {"ids", "inbox", "outbox"}


@functools.cache
def content(path, inode, changed_ns):
    """Digest of a file; read once for each change of it."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest(host, *folders):
    """One line for each file below: type, mode, owner, size, content."""
    lines = {}
    for folder in folders:
        top = str(host.path(folder))
        for where, folder_names, file_names in os.walk(top):
            for entry in sorted(folder_names + file_names):
                if entry in ALIVE:
                    continue
                path = os.path.join(where, entry)
                about = os.lstat(path)
                inside = ""
                if stat.S_ISLNK(about.st_mode):
                    inside = os.readlink(path)
                elif stat.S_ISREG(about.st_mode):
                    inside = content(path, about.st_ino, about.st_ctime_ns)
                lines[path.removeprefix(top)] = (about.st_mode, about.st_uid, about.st_gid, about.st_size, inside)
    return lines


@pytest.fixture
def unchanged(agent_host, pool):
    """Digests of shared storage and of the host's state, equal at the end."""
    folders = ("/rhev/data-center/mnt", "/var/lib/vdsm", "/etc/vdsm")
    before = digest(agent_host, *folders)
    assert any("dom_md/metadata" in name for name in before), "the domain is not where this test looks"
    yield
    after = digest(agent_host, *folders)
    assert {k: v for k, v in after.items() if before.get(k) != v} == {}
    assert before.keys() == after.keys()


@pytest.mark.cost(0.3)
@pytest.mark.parametrize("name", sorted(VERBS))
async def test_wrong_input_is_refused_by_name_and_changes_nothing(name, agent_host, client, unchanged):
    agent = agent_host.agent_pid
    long = ""
    for what, params, named in wrong_inputs(VERBS[name].params):
        if what == "10 MiB":
            if long and not SOAK:  # of one parameter; a unit test has all
                continue
            long = named
        with pytest.raises(RpcError) as caught:
            await client.call(name, params)
        error = caught.value
        assert error.code == INVALID_PARAMS, f"{name}, {named} {what}: {error}"
        assert f"'{named}" in error.message, f"{name}, {named} {what}: {error}"
        assert len(error.message) < 1000
    assert await client.call("Host.ping2") is True
    assert agent_host.agent_lives
    assert agent_host.agent_pid == agent

# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's own figures hold what engines cast them to, key by key; and the check can tell."""

import pytest

from contrib.contract.casts import wrong
from vdsm.api import contract

DISPLAY = {"type": "vnc", "port": "5900", "tlsPort": "-1", "ipAddress": "0"}
VM_STATS = {"vmId": "x", "status": "Up", "statusTime": "12", "hash": "1", "displayInfo": [DISPLAY]}


@pytest.fixture
async def alone(api):
    """The host without the parts that need other processes."""
    api.agent.host._network = dict
    api.agent.host._vm_states = lambda: ["Up", "Down", "Migration Source"]
    return api


@pytest.mark.parametrize("verb", ["Host.getCapabilities", "Host.getStats", "Host.getHardwareInfo"])
async def test_host_tells_what_engines_cast(alone, verb):
    assert wrong(verb, (await alone.ask(verb, {}))["result"]) == []


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        ({**VM_STATS, "displayInfo": [DISPLAY | {"port": 5900}]}, "displayInfo[0].port"),
        ({**VM_STATS, "cpuUser": 1}, "cpuUser"),
        ({**VM_STATS, "memUsage": 1.0}, "memUsage"),
        ({**VM_STATS, "memUsage": str(1 << 31)}, "memUsage"),
        ({**VM_STATS, "guestFQDN": None}, "guestFQDN"),
        ({**VM_STATS, "disks": {"vda": {"truesize": True}}}, "disks.vda.truesize"),
        ({**VM_STATS, "balloonInfo": {"balloon_cur": 1.5}}, "balloonInfo.balloon_cur"),
        ({**VM_STATS, "vmJobs": []}, "vmJobs"),
        ({key: VM_STATS[key] for key in ("vmId", "status", "statusTime")}, "hash is missing"),
    ],
)
def test_one_wrong_form_is_found(broken, place):
    assert wrong("Host.getAllVmStats", [VM_STATS]) == []
    (found,) = wrong("Host.getAllVmStats", [broken])
    assert place in found


def test_every_key_that_an_engine_needs_of_a_host_is_in_the_contract():
    capabilities, stats = contract.bodies()["VdsmCapabilities"], contract.bodies()["HostStats"]
    assert {"packages2", "emulatedMachines", "HBAInventory", "networks", "clusterLevels"} <= capabilities.keys()
    assert {"hugepages", "storageDomains", "cpuStatistics", "dateTime", "haStats"} <= stats.keys()

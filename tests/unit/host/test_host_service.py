# SPDX-License-Identifier: GPL-2.0-or-later
"""Capabilities and statistics have the keys and types that an engine casts to, and come from the providers."""

import asyncio
import os
from types import SimpleNamespace

import pytest

from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths
from vdsm.host import capabilities, machines, system
from vdsm.host.machines import Hypervisor
from vdsm.host.service import Host
from vdsm.host.tree import Tree

MACHINES = "<capabilities><guest><arch name='x86_64'><machine>q35</machine></arch></guest></capabilities>"
LISTS = ("clusterLevels", "supportedENGINEs", "emulatedMachines", "rngSources", "additionalFeatures", "nameservers")
OBJECTS = ("packages2", "HBAInventory", "numaNodes", "numaNodeDistance", "operatingSystem", "supported_block_size")
NETWORK = ("networks", "nics", "bondings", "vlans", "bridges")
TEXTS = ("cpuModel", "cpuFlags", "onlineCpus", "boot_uuid", "kernelArgs", "software_version", "version_name")
WHOLE = ("cpuCores", "cpuThreads", "cpuSockets", "memSize", "reservedMem", "guestOverhead", "autoNumaBalancing")


DEVICES: dict[str, SimpleNamespace] = {}


class Away(AgentError):
    msg = "libvirt is away"


async def no_packages():
    return {}


def new(tmp_path, **providers):
    paths = Paths(etc=str(tmp_path), state=str(tmp_path), run=str(tmp_path))
    (tmp_path / "vdsm.id").write_text("6a3b1f0e-0000-4000-8000-000000000001")
    return Host(paths=paths, packages=no_packages, **providers)


async def test_capabilities_have_the_types_that_engines_cast_to(tmp_path):
    found = await new(tmp_path).capabilities()
    assert all(isinstance(found[key], list) for key in LISTS)
    assert all(isinstance(found[key], dict) for key in OBJECTS + NETWORK)
    assert all(isinstance(found[key], str) for key in TEXTS)
    assert all(str(found[key]).isdigit() for key in WHOLE)
    assert isinstance(found["cpuSpeed"], str) and float(found["cpuSpeed"]) >= 0
    assert set(found["HBAInventory"]) == {"FC", "iSCSI"}
    assert all(isinstance(number, int) for number in found["domain_versions"])
    assert all(isinstance(value, int) for place in found["cpuTopology"] for value in place.values())
    assert all(node["totalMemory"].isdigit() for node in found["numaNodes"].values())
    assert {"version", "release"} == set(found["packages2"]["vdsm"])
    assert found["kvmEnabled"] in ("true", "false")


async def test_capabilities_hold_what_providers_say(tmp_path):
    async def hypervisor():
        return Hypervisor(MACHINES, "", 9_000_000, 7_002_000)

    async def network():
        return {"nics": {"eth0": {}}, "nameservers": ["192.0.2.1"]}

    hooks = {"before_vm_start": {"50_x": {"checksum": "ab"}}}
    host = new(tmp_path, hypervisor=hypervisor, network=network, hooks=lambda: hooks)
    found = await host.capabilities()
    assert found["uuid"] == "6a3b1f0e-0000-4000-8000-000000000001"
    assert found["emulatedMachines"] == ["q35"]
    assert found["nics"] == {"eth0": {}} and found["bondings"] == {} and found["nameservers"] == ["192.0.2.1"]
    assert found["hooks"] == hooks
    assert found["packages2"]["libvirt"]["version"] == "9.0.0"


async def test_capabilities_repeat_what_libvirt_said_when_it_is_away(tmp_path):
    answers = [Hypervisor(MACHINES), Away()]

    async def hypervisor():
        answer = answers.pop(0)
        if isinstance(answer, AgentError):
            raise answer
        return answer

    host = new(tmp_path, hypervisor=hypervisor)
    await host.capabilities()
    assert (await host.capabilities())["emulatedMachines"] == ["q35"]


async def test_unknown_networks_are_an_error_and_not_an_empty_list(tmp_path):
    def network():
        raise Away()

    with pytest.raises(Away):
        await new(tmp_path, network=network).capabilities()


def test_kvm_needs_device_and_processor_flag(tmp_path):
    tree = Tree(str(tmp_path))
    assert not capabilities.can_use_kvm(tree, frozenset({"vmx"}))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    assert not capabilities.can_use_kvm(tree, frozenset({"sse2"}))
    assert capabilities.can_use_kvm(tree, frozenset({"svm"}))


async def test_statistics_hold_what_providers_say(tmp_path):
    domain = {"6a3b": {"code": 0, "lastCheck": "1.0", "delay": "0.001", "valid": True}}
    states = ["Up", "Down", "Migration Source", "Migration Destination"]
    host = new(tmp_path, storage_domains=lambda: domain, vm_states=lambda: states)
    found = await host.stats()
    assert found["storageDomains"] == domain
    counts = [found[key] for key in ("vmCount", "vmActive", "vmMigrating")]
    assert [*counts, found["incomingVmMigrations"], found["outgoingVmMigrations"]] == [4, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("state", "active"),
    [
        ("Up", 1),
        ("Powering up", 1),
        ("RebootInProgress", 1),
        ("Powering down", 1),
        ("Paused", 0),
        ("WaitForLaunch", 0),
        ("Down", 0),
    ],
)
async def test_active_are_vms_that_run(tmp_path, state, active):
    assert (await new(tmp_path, vm_states=lambda: [state]).stats())["vmActive"] == active


def of_machines(*names):
    listed = "".join(f"<machine>{name}</machine>" for name in names)
    return f"<capabilities><guest><arch name='x86_64'>{listed}</arch></guest></capabilities>"


@pytest.mark.parametrize(
    ("names", "libvirt", "qemu", "told"),
    [
        (("pc-q35-rhel9.6.0",), 10_010_000, 9_001_000, []),
        (("pc-i440fx-rhel7.6.0",), 10_010_000, 9_001_000, []),
        (("pc-q35-rhel9.6.0",), 10_009_000, 9_001_000, ["level 4.8", "libvirt 10.9.0"]),
        (
            ("pc-q35-4.1", "pc-i440fx-2.6"),
            11_000_000,
            10_000_000,
            ["pc-q35-rhel9.6.0 or pc-i440fx-rhel7.6.0", "level 4.2, 4.4, 4.5, 4.6, 4.7"],
        ),
        (("virt-9.0",), 9_000_000, 7_002_000, ["NonOperational", "joins no cluster"]),
    ],
)
def test_what_keeps_a_host_out_of_clusters_is_said(names, libvirt, qemu, told):
    sentence = machines.what_limits_the_cluster(Hypervisor(of_machines(*names), "", libvirt, qemu), "x86_64")
    assert bool(sentence) is bool(told)
    assert all(part in sentence for part in told)


def test_of_what_nobody_knows_nothing_is_said():
    assert machines.what_limits_the_cluster(Hypervisor(), "x86_64") == ""
    assert machines.what_limits_the_cluster(Hypervisor(of_machines("x"), "", 1, 1), "s390x") == ""


async def test_it_is_said_once_in_the_log(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")

    async def hypervisor():
        return Hypervisor(MACHINES, "", 9_000_000, 7_002_000)

    host = new(tmp_path, hypervisor=hypervisor)
    await host.capabilities()
    await host.capabilities()
    assert caplog.text.count("NonOperational") == 1


def test_boot_uuid_is_that_of_the_file_system_of_boot(tmp_path, monkeypatch):
    (tmp_path / "boot").mkdir()
    (tmp_path / "dev/disk/by-uuid").mkdir(parents=True)
    for name, number in (("aaaa", 7), ("bbbb", 8)):
        (tmp_path / "dev/disk/by-uuid" / name).touch()
        monkeypatch.setitem(DEVICES, str(tmp_path / "dev/disk/by-uuid" / name), SimpleNamespace(st_rdev=number))
    (tmp_path / "dev/disk/by-uuid/gone").symlink_to("nowhere")
    monkeypatch.setitem(DEVICES, str(tmp_path / "boot"), SimpleNamespace(st_dev=8))
    real = os.stat
    monkeypatch.setattr(system.os, "stat", lambda path: DEVICES.get(path) or real(path))
    assert system.boot_uuid(Tree(str(tmp_path))) == "bbbb"
    monkeypatch.setitem(DEVICES, str(tmp_path / "boot"), SimpleNamespace(st_dev=9))
    assert system.boot_uuid(Tree(str(tmp_path))) == ""
    assert system.boot_uuid(Tree(str(tmp_path / "nowhere"))) == ""


async def test_statistics_have_the_types_that_engines_cast_to(tmp_path):
    found = await new(tmp_path).stats()
    for key in ("cpuUser", "cpuSys", "cpuIdle", "cpuLoad"):
        assert isinstance(found[key], str) and float(found[key]) >= 0
    for key in ("memFree", "memShared", "swapTotal", "swapFree"):
        assert isinstance(found[key], int)
    assert isinstance(found["hugepages"], dict)
    assert all(set(cpu) == {"cpuUser", "cpuSys", "cpuIdle", "nodeIndex"} for cpu in found["cpuStatistics"].values())
    assert all(isinstance(nic["sampleTime"], float) for nic in found["network"].values())
    assert found["dateTime"].endswith(" GMT") and "T" in found["dateTime"]


async def test_samples_are_taken_by_themselves_and_end_with_stop(tmp_path):
    host = new(tmp_path, period_s=0.01)
    await host.start()
    try:
        first = host._samples[1]
        async with asyncio.timeout(5):
            while host._samples[0] is None or host._samples[1] is first:
                await asyncio.sleep(0.005)
    finally:
        await host.stop()
    last = host._samples[1]
    await asyncio.sleep(0.05)
    assert host._samples[1] is last


@pytest.mark.parametrize("dirty", [True, False])
async def test_statistics_tell_whether_networks_are_to_be_made_persistent(tmp_path, dirty):
    assert (await new(tmp_path, network_dirty=lambda: dirty).stats())["netConfigDirty"] == str(dirty)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel, libvirt and the distribution write, as this host reads it."""

import os

import pytest

from vdsm.common.paths import Paths
from vdsm.host import cpu, devices, machines, memory, statistics, system
from vdsm.host.hardware import read_hardware
from vdsm.host.identity import host_uuid
from vdsm.host.tree import Tree, number_list

CPUINFO = """\
processor	: 0
model name	: Intel(R) Xeon(R) Processor
cpu MHz		: 2599.998
flags		: fpu vmx sse2

processor	: 1
model name	: Intel(R) Xeon(R) Processor
cpu MHz		: 1200.000
flags		: fpu vmx sse2
"""
STAT = """\
cpu  100 10 50 800 20 5 5 10 0 0
cpu0 60 5 25 400 10 3 2 5 0 0
cpu1 40 5 25 400 10 2 3 5 0 0
intr 1 2 3
btime 1700000000
"""
MEMINFO = """\
MemTotal:       16384000 kB
MemFree:         4096000 kB
Buffers:          102400 kB
Cached:          1024000 kB
SReclaimable:     204800 kB
SwapTotal:       2097152 kB
SwapFree:        1048576 kB
AnonHugePages:   1024000 kB
HugePages_Total:       0
"""
CAPABILITIES = """\
<capabilities><guest><os_type>hvm</os_type>
  <arch name='i686'><machine>pc-old</machine></arch>
</guest><guest><os_type>hvm</os_type>
  <arch name='x86_64'><machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine><machine>pc-i440fx-6.0</machine>
    <domain type='kvm'><machine>pc-q35-6.1</machine></domain></arch>
</guest></capabilities>"""
DOMAIN_CAPABILITIES = """\
<domainCapabilities><cpu>
  <mode name='host-model' supported='yes'><model>Haswell</model>
    <feature policy='require' name='ssbd'/><feature policy='disable' name='hle'/></mode>
  <mode name='custom' supported='yes'><model usable='yes'>Haswell-IBRS</model><model usable='no'>EPYC</model></mode>
</cpu></domainCapabilities>"""


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(str(root))


def test_processor_is_the_first_ones():
    info = cpu.parse_cpuinfo(CPUINFO)
    assert (info.model, info.speed_mhz, info.count) == ("Intel(R) Xeon(R) Processor", 2599.998, 2)
    assert info.flags == {"fpu", "vmx", "sse2"}


def test_topology_counts_cores_of_each_socket_apart(tmp_path):
    folder = "sys/devices/system/cpu"
    files = {f"{folder}/online": "0-3", "sys/devices/system/node/node1/cpulist": "2-3"}
    for number, (socket, core) in enumerate([(0, 0), (0, 0), (1, 0), (1, 1)]):
        files[f"{folder}/cpu{number}/topology/core_id"] = str(core)
        files[f"{folder}/cpu{number}/topology/physical_package_id"] = str(socket)
    topology = cpu.read_topology(write(tmp_path, files), 4)
    assert (len(topology.places), topology.cores, topology.sockets) == (4, 3, 2)
    assert [place.node for place in topology.places] == [0, 0, 1, 1]


def test_topology_without_sysfs_is_flat(tmp_path):
    topology = cpu.read_topology(Tree(str(tmp_path)), 2)
    assert (topology.online, topology.cores, topology.sockets) == ([0, 1], 2, 1)


def test_shares_are_of_the_time_between_two_samples():
    before = cpu.parse_stat(STAT)[""]
    after = cpu.CpuTimes(before.user + 30, before.system + 20, before.idle + 50, before.total + 100)
    assert cpu.shares(before, after) == cpu.Shares(30.0, 20.0, 50.0)
    assert cpu.shares(None, after) == cpu.Shares()
    assert cpu.shares(after, after) == cpu.Shares()


def test_waiting_for_disks_is_idle_time():
    times = cpu.parse_stat(STAT)
    assert times[""] == cpu.CpuTimes(110, 60, 820, 1000)
    assert sorted(times) == ["", "0", "1"]


def test_free_memory_includes_caches_that_can_go():
    assert memory.free_kib(memory.parse_meminfo(MEMINFO)) == 4096000 + 102400 + 1024000 + 204800


def test_nodes_have_their_memory_and_pages(tmp_path):
    node = "sys/devices/system/node/node0"
    tree = write(
        tmp_path,
        {
            f"{node}/meminfo": "Node 0 MemTotal:       2048000 kB\nNode 0 MemFree:        1024000 kB\n",
            f"{node}/cpulist": "0-1",
            f"{node}/distance": "10 21",
            f"{node}/hugepages/hugepages-2048kB/nr_hugepages": "8",
            f"{node}/hugepages/hugepages-2048kB/free_hugepages": "3",
        },
    )
    (only,) = memory.read_nodes(tree)
    assert (only.cpus, only.total_mib, only.free_mib, only.distances) == ((0, 1), 2000, 1000, (10, 21))
    assert only.hugepages == {2048: (8, 3)}


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-3,8", [0, 1, 2, 3, 8]), ("5", [5]), ("", []), ("a-b", []), ("1,,2", [1, 2])]
)
def test_number_list(text, numbers):
    assert number_list(text) == numbers


def test_machines_of_the_own_architecture_with_their_aliases():
    assert machines.emulated_machines(CAPABILITIES, "x86_64") == ["q35", "pc-q35-7.2", "pc-i440fx-6.0", "pc-q35-6.1"]
    assert machines.emulated_machines("", "x86_64") == []


def test_flags_name_usable_models_only():
    assert machines.cpu_features(DOMAIN_CAPABILITIES) == ["ssbd", "model_Haswell-IBRS", "spec_ctrl"]


@pytest.mark.parametrize(
    ("libvirt", "qemu", "last"),
    [(7_010_000, 6_000_000, "4.6"), (9_000_000, 7_002_000, "4.7"), (10_010_000, 9_001_000, "4.8")],
)
def test_newest_cluster_level_needs_new_hypervisor(libvirt, qemu, last):
    assert machines.cluster_levels(libvirt, qemu)[-1] == last


def test_debian_versions_lose_epoch_and_keep_revision():
    versions = system.dpkg_versions(
        "qemu-system-x86 1:7.2+dfsg-7+deb12u18 installed\nsanlock 3.8.5-1+b1 installed\n"
        "lvm2 2.03-1 config-files\nlibvirt-daemon 9.0 installed\n"
    )
    assert system.wire_packages(versions) == {
        "qemu-kvm": {"version": "7.2+dfsg", "release": "7+deb12u18"},
        "sanlock": {"version": "3.8.5", "release": "1+b1"},
        "libvirt": {"version": "9.0", "release": "0"},
    }


def test_release_file_with_quotes_and_comments():
    release = system.parse_os_release('# c\nID="rhel"\nVERSION_ID="9.4"\nPRETTY_NAME="Red Hat"\nODD="\n')
    assert (release.name, release.version, release.release, release.pretty_name) == ("rhel", "9", "4", "Red Hat")


def test_process_name_may_hold_brackets():
    stat = "12 (a) b) S 1 1 1 0 -1 4 0 0 0 0 77 33 0 0"
    assert statistics.own_ticks(stat) == (77, 33)
    assert statistics.own_ticks("") == (0, 0)


def test_everything_missing_is_tolerated(tmp_path):
    sample = statistics.take(Tree(str(tmp_path)), ("/no/such/folder",))
    found = statistics.figures(None, sample)
    assert found["cpuIdle"] == "100.00" and found["memFree"] == 0 and found["diskStats"] == {}


def test_interfaces_without_carrier_have_speed_zero(tmp_path):
    folder = "sys/class/net/eth0"
    files = {f"{folder}/speed": "-1", f"{folder}/operstate": "down", f"{folder}/statistics/rx_bytes": "5"}
    (nic,) = devices.interfaces(write(tmp_path, files), 1.0).values()
    assert (nic["speed"], nic["state"], nic["rx"], nic["tx"]) == ("0", "down", "5", "0")


def test_adapters_always_have_both_lists(tmp_path):
    assert devices.adapters(Tree(str(tmp_path))) == {"FC": [], "iSCSI": []}
    tree = write(tmp_path, {"etc/iscsi/initiatorname.iscsi": "## \nInitiatorName=iqn.1994-05.com:1\n"})
    assert devices.adapters(tree)["iSCSI"] == [{"InitiatorName": "iqn.1994-05.com:1"}]


def test_sysctl_files_can_be_read():
    assert Tree().text("/proc/sys/kernel/osrelease") == os.uname().release


def test_host_id_of_the_file_comes_first(tmp_path):
    tree = write(tmp_path, {"etc/vdsm/vdsm.id": "36B2C9F0-0000-4000-8000-000000000001\n"})
    assert host_uuid(Paths(), tree) == "36B2C9F0-0000-4000-8000-000000000001"


def test_host_without_any_id_keeps_its_random_one(tmp_path):
    (tmp_path / "var/lib/vdsm/identity").mkdir(parents=True)
    tree = Tree(str(tmp_path))
    first = host_uuid(Paths(), tree)
    assert first == host_uuid(Paths(), tree)
    assert len(first) == 36


def test_hardware_uuid_falls_back_to_the_hosts_own(tmp_path):
    tree = write(tmp_path, {"sys/class/dmi/id/sys_vendor": "Acme\n"})
    found = read_hardware(tree, "own-id")
    assert (found["systemManufacturer"], found["systemUUID"], found["systemSerialNumber"]) == ("Acme", "own-id", "")

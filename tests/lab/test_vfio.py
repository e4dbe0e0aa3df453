# SPDX-License-Identifier: GPL-2.0-or-later
"""A NIC behind an IOMMU can be taken from its driver and given to VFIO."""

from __future__ import annotations

import pytest

from contrib.lab.microvm.host import MicroHost
from tests.failure_logs import watched

pytestmark = pytest.mark.cost(50)

TAKE = """
set -e
nic=$(basename $(dirname $(grep -l 0x10d3 /sys/bus/pci/devices/*/device)))
test -d /sys/bus/pci/devices/$nic/iommu_group
echo vfio-pci > /sys/bus/pci/devices/$nic/driver_override
echo $nic > /sys/bus/pci/devices/$nic/driver/unbind
echo $nic > /sys/bus/pci/drivers_probe
basename $(readlink /sys/bus/pci/devices/$nic/driver)
basename $(readlink /sys/bus/pci/devices/$nic/iommu_group)
"""


def test_a_nic_behind_the_iommu_is_given_to_vfio() -> None:
    with MicroHost("vfio", vfio=True, hypervisor=False, memory_mib=1024) as host, watched(host):
        driver, group = host.run(["sh", "-c", TAKE]).stdout.decode().split()
        assert driver == "vfio-pci"
        assert host.run(["test", "-c", f"/dev/vfio/{group}"]).returncode == 0

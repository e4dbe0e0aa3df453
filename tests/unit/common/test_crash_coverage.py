# SPDX-License-Identifier: GPL-2.0-or-later
"""No crash point without a test that really dies there."""

import importlib
import pkgutil
from pathlib import Path

import network
import storage
import vdsm
from vdsm.common.crashpoints import REGISTRY

APART = ("__main__", "scriptlib", "iohelper")  # processes of their own, and what runs under the system's Python


def test_every_crash_point_is_died_at(monkeypatch):
    for package in (network, storage, vdsm):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part in module.name for part in APART):
                importlib.import_module(module.name)

    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "hosts")
    networks, volumes, vms = map(importlib.import_module, ("test_crash_network", "test_crash_storage", "test_crash_vm"))
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "certificates")
    certificates = importlib.import_module("test_certificates")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "storage")
    names = ("test_file_domain", "test_pool_deaths")
    file_domains, pools = map(importlib.import_module, names)
    died_at = {
        *(point for point in file_domains.OURS if point.startswith("domain.format.")),
        *certificates.POINTS,
        *networks.POINTS,
        *pools.POINTS,
        *volumes.POINTS,
        *vms.CREATE,
        *vms.DESTROY,
        *volumes.MAKING,
    }
    assert set(REGISTRY) - died_at == set()

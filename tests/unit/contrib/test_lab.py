# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from contrib.lab import guest, kernels
from contrib.lab.accounts import accounts_of
from contrib.lab.groups import hierarchies
from contrib.lab.spec import HostSpec
from contrib.lab.vm_xml import Disk, Vm, to_xml

PASSWD = "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:107::/:/bin/false\nsanlock:x:99:99::/:/bin/false\n"
GROUP = "root:x:0:\nkvm:x:107:\nsanlock:x:99:\nlibvirt:x:100:someone\n"


def test_vdsm_joins_the_groups_of_its_servers() -> None:
    group = accounts_of(PASSWD, GROUP).group.splitlines()
    assert {"kvm:x:107:vdsm", "sanlock:x:99:vdsm", "libvirt:x:100:someone,vdsm"} <= set(group)
    assert "vdsm:x:36:libvirt-qemu,sanlock" in group


def test_whoever_has_number_36_gives_way() -> None:
    taken = accounts_of(PASSWD + "squatter:x:36:36::/:/bin/false\n", GROUP + "squatters:x:36:\n")
    assert "squatter" not in taken.passwd + taken.group
    assert taken.passwd.count(":36:36:") == 1


def test_machine_without_qemu_user_runs_it_as_root() -> None:
    assert accounts_of("root:x:0:0:root:/root:/bin/bash\n", GROUP).qemu_user == "root"


def test_spec_survives_the_pipe() -> None:
    spec = HostSpec("a", "b", shared={"/in": "/out"}, settings="[x]\ny = 1\n")
    assert HostSpec.from_json(spec.to_json()) == spec


def test_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    kernel = kernels.Kernel(tmp_path / "vmlinuz", tmp_path / "modules", "6.1")
    kernel.modules.mkdir()
    (kernel.modules / "virtio_blk.ko").write_bytes(b"ELF\0depends=virtio\0rest")
    (kernel.modules / "virtio.ko").write_bytes(b"ELF\0depends=\0rest")
    listed = subprocess.run(
        ["busybox", "cpio", "-t"], input=guest.archive(kernel), capture_output=True, check=True
    ).stdout.decode()
    names = listed.split()
    assert {"init", "bin/busybox", "modules/virtio_blk.ko", "modules/order"} <= set(names)
    assert names.index("modules/virtio.ko") < names.index("modules/virtio_blk.ko")


def test_missing_kernel_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CACHE", tmp_path)
    with pytest.raises(kernels.KernelMissing, match="make setup"):
        kernels.find("guest")


def test_domain_xml_names_drives_by_their_ids() -> None:
    text = to_xml(Vm("u", "n", disks=[Disk("pool", "domain", "image", "volume")]))
    assert "<ovirt-vm:imageID>image</ovirt-vm:imageID>" in text
    assert 'file=""' in text


def test_every_hierarchy_has_our_place_in_it() -> None:
    for hierarchy in hierarchies():
        assert hierarchy.path.startswith("/")

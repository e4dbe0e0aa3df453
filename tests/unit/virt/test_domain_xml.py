# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and editing of domain XML."""

from __future__ import annotations

import pytest

from vdsm.common.errors import InvalidParameter
from vdsm.common.xml import parse, to_text
from vdsm.virt.domain_xml.description import describe, is_ours
from vdsm.virt.domain_xml.drives import Source, set_source
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.machine import fit_to_emulation, keep_through_reboot
from vdsm.virt.domain_xml.metadata import read_metadata, write_value
from vdsm.virt.domain_xml.placeholders import fill_placeholders

from .fakes import DOMAIN, FACTS, IMAGE, POOL, VM, VOLUME, disk, xml_of


def test_a_disk_is_matched_with_its_metadata_by_target() -> None:
    described = describe(parse(xml_of(disks=[disk("vdb"), ("<disk><target dev='sda'/></disk>", "")]), what="test"))
    first, second = described.drives
    assert first.image is not None
    assert (first.image.pool_id, first.image.domain_id, first.image.image_id, first.image.volume_id) == (
        POOL,
        DOMAIN,
        IMAGE,
        VOLUME,
    )
    assert second.image is None


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (xml_of(disks=[("", disk()[1])]), "no disk with this target"),
        (xml_of(disks=[disk(), (disk()[0], "")]), "two disks have this target"),
        (xml_of(disks=[disk(), ("", disk()[1])]), "metadata of disk vda: it stands there twice"),
        (
            xml_of(disks=[(f"<disk device='cdrom'><target dev='sd{n}'/></disk>", "") for n in range(501)]),
            "more than 500",
        ),
        (xml_of().replace("<name>vm-0063</name>", "<name>../up</name>"), "name"),
        (xml_of().replace("<domain ", "<network ").replace("</domain>", "</network>"), "root element"),
    ],
)
def test_nonsense_is_refused_with_its_place(broken: str, told: str) -> None:
    with pytest.raises(BadDomainXml, match=told):
        describe(parse(broken, what="test"))


def test_an_id_that_is_a_path_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="imageID"):
        describe(parse(xml_of(disks=[disk(image="../../etc")]), what="test"))


def test_typed_metadata_is_read() -> None:
    text = xml_of(
        metadata="<ovirt-vm:custom><ovirt-vm:color>blue</ovirt-vm:color></ovirt-vm:custom>"
        "<ovirt-vm:launchPaused type='bool'>true</ovirt-vm:launchPaused>"
        "<ovirt-vm:minGuaranteedMemoryMb type='int'>512</ovirt-vm:minGuaranteedMemoryMb>"
    )
    metadata = read_metadata(parse(text, what="test"))
    assert metadata.custom == {"color": "blue"}
    assert metadata.launch_paused
    assert metadata.min_guaranteed_memory_mib == 512


def test_written_metadata_keeps_what_nobody_knows() -> None:
    root = parse(xml_of(metadata="<ovirt-vm:later>x</ovirt-vm:later>"), what="test")
    write_value(root, "startTime", 12.5)
    write_value(root, "startTime", 13.5)
    again = parse(to_text(root), what="test")
    assert read_metadata(again).started_at_s == 13.5
    assert to_text(again).count("startTime") == 2  # one element
    assert ">x<" in to_text(again)


@pytest.mark.parametrize(("kind", "attribute"), [("file", "file"), ("block", "dev")])
def test_a_prepared_image_becomes_the_source(kind: str, attribute: str) -> None:
    root = parse(xml_of(disks=[disk()]), what="test")
    set_source(root, "vda", Source("/rhev/x", kind, "cow"))
    found = root.find("devices/disk")
    assert found is not None
    source, driver, label = found.find("source"), found.find("driver"), found.find("source/seclabel")
    assert found.get("type") == kind
    assert source is not None and dict(source.attrib) == {attribute: "/rhev/x"}
    assert driver is not None and driver.get("type") == "qcow2"
    assert label is not None and dict(label.attrib) == {"model": "dac", "relabel": "no"}


def test_placeholders_of_the_host_are_filled() -> None:
    sysinfo = "".join(f"<entry name='x'>{word}</entry>" for word in ("OS-NAME:", "OS-VERSION:", "HOST-SERIAL:"))
    root = parse(xml_of(more=f"<sysinfo><system>{sysinfo}</system></sysinfo>"), what="test")
    fill_placeholders(root, FACTS)
    assert [e.text for e in root.iter("entry")] == ["Test OS", "7", "host-1"]


def test_a_placeholder_that_nobody_fills_is_refused_by_name() -> None:
    root = parse(xml_of(devices="<lease><target path='LEASE-PATH:a:b'/></lease>"), what="test")
    with pytest.raises(BadDomainXml, match="LEASE-PATH"):
        fill_placeholders(root, FACTS)


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("<cpu mode='host-passthrough' check='none'><topology sockets='1'/></cpu>", {"mode": "maximum"}),
        (
            "<cpu match='exact'><model>Haswell</model><feature policy='require' name='vmx'/></cpu>",
            {"mode": "custom", "match": "exact", "check": "none"},
        ),
    ],
)
def test_emulation_keeps_no_request_that_only_kvm_meets(cpu: str, expected: dict[str, str]) -> None:
    more = cpu + "<clock offset='utc'><timer name='kvmclock'/><timer name='rtc'/></clock>"
    root = parse(xml_of(more=more).replace("<acpi/>", "<acpi/><hyperv/>"), what="test")
    fit_to_emulation(root)
    assert root.get("type") == "qemu"
    assert root.find("features/hyperv") is None and root.find("features/acpi") is not None
    assert [t.get("name") for t in root.iter("timer")] == ["rtc"]
    found = root.find("cpu")
    assert found is not None and dict(found.attrib) == expected
    assert found.find("feature") is None


def test_destroy_on_reboot_is_the_agents_work() -> None:
    root = parse(xml_of(more="<on_reboot>destroy</on_reboot>"), what="test")
    assert keep_through_reboot(root)
    assert root.find("on_reboot") is None
    assert not keep_through_reboot(root)


def test_the_digest_is_stable_and_changes_with_devices() -> None:
    one, two = (describe(parse(xml_of(disks=[disk(t)]), what="test")).devices_digest for t in ("vda", "vdb"))
    assert one != two
    assert one == describe(parse(xml_of(disks=[disk("vda")]), what="test")).devices_digest


def test_a_domain_without_metadata_is_foreign() -> None:
    assert is_ours(parse(xml_of(), what="test"))
    assert not is_ours(parse(f"<domain><uuid>{VM}</uuid></domain>", what="test"))


OLD = (
    "<launchPaused>true</launchPaused><minGuaranteedMemoryMb type='int'>7</minGuaranteedMemoryMb>"
    "<ballooningEnabled>false</ballooningEnabled><startTime type='float'>5.5</startTime>"
    "<destroy_on_reboot type='bool'>True</destroy_on_reboot><custom><color>blue</color></custom>"
)


def test_metadata_without_prefix_is_read() -> None:
    metadata = read_metadata(parse(xml_of(metadata=OLD), what="test"))
    assert metadata.launch_paused and metadata.destroy_on_reboot and not metadata.ballooning_enabled
    assert (metadata.min_guaranteed_memory_mib, metadata.started_at_s) == (7, 5.5)
    assert metadata.custom == {"color": "blue"}


def test_disks_are_found_by_metadata_without_prefix() -> None:
    element, metadata = disk()
    without = metadata.replace("ovirt-vm:", "")
    assert [d.image for d in describe(parse(xml_of(disks=[(element, without)]), what="test")).drives] == [
        d.image for d in describe(parse(xml_of(disks=[(element, metadata)]), what="test")).drives
    ]


def test_a_value_without_prefix_is_changed_in_its_place() -> None:
    root = parse(xml_of(metadata=OLD), what="test")
    write_value(root, "startTime", 9.5)
    assert to_text(root).count("startTime") == 2  # one element
    assert read_metadata(parse(to_text(root), what="test")).started_at_s == 9.5


def test_the_prefix_wins_where_both_stand() -> None:
    both = "<launchPaused>true</launchPaused><ovirt-vm:launchPaused>false</ovirt-vm:launchPaused>"
    assert not read_metadata(parse(xml_of(metadata=both), what="test")).launch_paused


@pytest.mark.parametrize(
    ("ids", "lun_id"),
    [
        ("<ovirt-vm:GUID>3600140</ovirt-vm:GUID>", "3600140"),
        ("<ovirt-vm:GUID>3600140</ovirt-vm:GUID><ovirt-vm:imageID>3600140</ovirt-vm:imageID>", "3600140"),
        ("<GUID>3600140</GUID><imageID>3600140</imageID>", "3600140"),
        ("<ovirt-vm:managed>true</ovirt-vm:managed><ovirt-vm:RBD>/dev/rbd/x</ovirt-vm:RBD>", ""),
        ("<ovirt-vm:RBD>/dev/rbd/x</ovirt-vm:RBD><ovirt-vm:imageID>x</ovirt-vm:imageID>", ""),
    ],
)
def test_a_direct_lun_is_no_image(ids: str, lun_id: str) -> None:
    lun = f"<ovirt-vm:device devtype='disk' name='sda'>{ids}</ovirt-vm:device>"
    (drive,) = describe(parse(xml_of(disks=[("<disk><target dev='sda'/></disk>", lun)]), what="test")).drives
    assert (drive.image, drive.lun) == (None, lun_id)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "soon"])
def test_a_start_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadDomainXml, match="startTime"):
        read_metadata(parse(xml_of(metadata=f"<ovirt-vm:startTime>{text}</ovirt-vm:startTime>"), what="test"))

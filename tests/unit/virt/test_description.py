# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read of a domain XML, field by field, and which field is told when it can't be read."""

from __future__ import annotations

from typing import Any

import pytest

from vdsm.common.errors import InvalidParameter
from vdsm.common.xml import parse, to_text
from vdsm.virt.domain_xml.description import Description, Display, Interface, describe
from vdsm.virt.domain_xml.drives import Source, set_source
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.machine import fit_to_emulation, keep_through_reboot
from vdsm.virt.domain_xml.metadata import VmMetadata, read_metadata, write_value
from vdsm.virt.domain_xml.named import read_named
from vdsm.virt.domain_xml.placeholders import fill_placeholders

from .fakes import DOMAIN, FACTS, IMAGE, POOL, VM, VOLUME, disk, xml_of


def described(**xml: Any) -> Description:
    return describe(parse(xml_of(**xml), what="it"))


def root_of(text: str = "", **xml: Any) -> Any:
    return parse(text or xml_of(**xml), what="it")


# The VM


def test_a_bare_domain_has_defaults() -> None:
    found = describe(parse(f"<domain><name>x</name><uuid>{VM}</uuid></domain>", what="it"))
    assert found == Description(
        vm_id=VM,
        name="x",
        metadata=VmMetadata(),
        drives=(),
        interfaces=(),
        displays=(),
        acpi=False,
        agent_channel=False,
        agent_connected=False,
        domain_type="",
        devices_digest="",
        clock_offset_s=0,
        memory_kib=0,
        cpus=1,
        host_devices=(),
    )
    assert not found.kvm


def test_what_the_engine_wrote_is_there() -> None:
    found = described(more="<vcpu>3</vcpu>")
    assert (found.vm_id, found.name, found.acpi, found.kvm, found.cpus) == (VM, "vm-0063", True, True, 3)
    assert not describe(parse(xml_of().replace("'kvm'", "'qemu'"), what="it")).kvm


@pytest.mark.parametrize("uuid", ["", "<uuid/>", "<uuid>x</uuid>", f"<uuid>{VM}x</uuid>"])
def test_an_id_that_is_none_is_refused_by_its_element(uuid: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        describe(parse(xml_of().replace(f"<uuid>{VM}</uuid>", uuid), what="it"))
    assert refused.value.name == "uuid"


def test_an_id_in_capitals_is_the_same_id() -> None:
    capitals = VM.replace("0000-000000000063", "0000-0000000000ab")
    assert describe(parse(xml_of(capitals.upper()), what="it")).vm_id == capitals


@pytest.mark.parametrize("name", ["", "   ", "a/b", "a\nb", "x" * 256])
def test_a_name_that_can_be_none_is_refused(name: str) -> None:
    text = xml_of().replace("<name>vm-0063</name>", f"<name>{name}</name>")
    with pytest.raises(BadDomainXml, match=r"invalid at name: .*can't be the name of a VM: 1 to 255 characters"):
        describe(parse(text, what="it"))


def test_a_name_may_be_long_and_have_spaces() -> None:
    for name in ("x" * 255, "my vm", "ä-ö"):
        text = xml_of().replace("<name>vm-0063</name>", f"<name> {name} </name>")
        assert describe(parse(text, what="it")).name == name


@pytest.mark.parametrize(
    ("memory", "kib"),
    [
        ("<memory>7</memory>", 7),
        ("<memory unit='b'>2048</memory>", 2),
        ("<memory unit='bytes'>2047</memory>", 1),
        ("<memory unit='k'>8</memory>", 8),
        ("<memory unit='KiB'>8</memory>", 8),
        ("<memory unit='M'>2</memory>", 2048),
        ("<memory unit='MiB'>2</memory>", 2048),
        ("<memory unit='G'>1</memory>", 1048576),
        ("<memory unit='GiB'>1</memory>", 1048576),
        ("<memory unit='lots'>9</memory>", 0),
        ("<memory>much</memory>", 0),
        ("<memory/>", 0),
        ("", 0),
    ],
)
def test_memory_has_a_unit(memory: str, kib: int) -> None:
    assert describe(parse(xml_of().replace("<memory>65536</memory>", memory), what="it")).memory_kib == kib


@pytest.mark.parametrize(
    ("clock", "offset_s"),
    [
        ("<clock offset='variable' adjustment='-7200'/>", -7200),
        ("<clock offset='variable' adjustment='60'/>", 60),
        ("<clock offset='variable'/>", 0),
        ("<clock offset='variable' adjustment='reset'/>", 0),
        ("<clock offset='utc' adjustment='60'/>", 0),
        ("", 0),
    ],
)
def test_the_clock_of_the_guest(clock: str, offset_s: int) -> None:
    assert described(more=clock).clock_offset_s == offset_s


CHANNEL = "<channel type='unix'><target type='virtio' name='{}' {}/></channel>"


@pytest.mark.parametrize(
    ("channel", "there", "connected"),
    [
        (CHANNEL.format("org.qemu.guest_agent.0", "state='connected'"), True, True),
        (CHANNEL.format("org.qemu.guest_agent.0", "state='disconnected'"), True, False),
        (CHANNEL.format("org.qemu.guest_agent.0", ""), True, False),
        (CHANNEL.format("com.redhat.spice.0", "state='connected'"), False, False),
    ],
)
def test_the_channel_of_the_guest_agent(channel: str, there: bool, connected: bool) -> None:
    found = described(devices=channel)
    assert (found.agent_channel, found.agent_connected) == (there, connected)


# Its devices


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("<source bridge='br0'/>", "br0"),
        ("<source network='n0'/>", "n0"),
        ("<source dev='eth0' mode='vepa'/>", "eth0"),
        ("<source/>", ""),
        ("", ""),
    ],
)
def test_a_vnic_is_read(source: str, network: str) -> None:
    nic = f"<interface><mac address='56:6f'/>{source}<target dev='vnet3'/><model type='virtio'/></interface>"
    assert described(devices=nic).interfaces == (Interface("vnet3", "56:6f", "virtio", network),)


def test_a_vnic_before_its_start_has_no_device() -> None:
    assert described(devices="<interface/>").interfaces == (Interface("", "", "", ""),)


@pytest.mark.parametrize(
    ("graphics", "display"),
    [
        (
            "<graphics type='spice' port='5900' tlsPort='5901'><listen type='address' address='192.0.2.1'/></graphics>",
            Display("spice", "5900", "5901", "192.0.2.1"),
        ),
        ("<graphics type='vnc' port='5902' listen='192.0.2.2'/>", Display("vnc", "5902", "-1", "192.0.2.2")),
        ("<graphics/>", Display("", "-1", "-1", "")),
    ],
)
def test_a_console_is_read(graphics: str, display: Display) -> None:
    assert described(devices=graphics).displays == (display,)


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("<hostdev type='usb'><source><address device='3' bus='1'/></source></hostdev>", "usb bus=1 device=3"),
        ("<hostdev type='scsi'><source><adapter name='scsi_host0'/></source></hostdev>", "scsi name=scsi_host0"),
        (
            "<hostdev type='scsi'><source><adapter name='scsi_host0'/><address unit='1'/></source></hostdev>",
            "scsi unit=1",
        ),
        ("<hostdev type='mdev'/>", "mdev"),
        ("<hostdev/>", ""),
    ],
)
def test_a_device_of_the_host_is_told_with_its_place(device: str, told: str) -> None:
    assert described(devices=device).host_devices == (told,)


def test_a_disk_is_read_with_its_kind_and_its_path() -> None:
    disks = [
        ("<disk device='cdrom'><source file='/iso'/><target dev='sdc'/></disk>", ""),
        ("<disk><source dev='/dev/x'/><target dev='vdb'/></disk>", ""),
        ("<disk><source/><target dev='vdc'/></disk>", ""),
    ]
    assert [(d.target, d.device, d.path, d.image, d.lun) for d in described(disks=disks).drives] == [
        ("sdc", "cdrom", "/iso", None, ""),
        ("vdb", "disk", "/dev/x", None, ""),
        ("vdc", "disk", "", None, ""),
    ]


def test_as_many_disks_as_may_be() -> None:
    disks = [(f"<disk><target dev='d{number}'/></disk>", "") for number in range(500)]
    assert len(described(disks=disks).drives) == 500


@pytest.mark.parametrize("target", ["", "<target/>", "<target dev=''/>"])
def test_a_disk_without_a_target_is_refused(target: str) -> None:
    with pytest.raises(BadDomainXml, match="invalid at disk: a disk has no target device"):
        described(disks=[(f"<disk>{target}</disk>", "")])


def test_metadata_of_a_disk_that_is_not_there_is_told_by_its_target() -> None:
    with pytest.raises(BadDomainXml, match="metadata of disk vda: the domain has no disk with this target"):
        described(disks=[("", disk()[1])])
    lun = "<ovirt-vm:device devtype='disk' name='sda'><ovirt-vm:GUID>3600</ovirt-vm:GUID></ovirt-vm:device>"
    assert described(metadata=lun).drives == ()  # an empty slot of a LUN is no harm


@pytest.mark.parametrize("lacks", ["poolID", "domainID", "imageID", "volumeID"])
def test_an_image_has_four_ids_and_the_one_that_is_wrong_is_told(lacks: str) -> None:
    ids = {"poolID": POOL, "domainID": DOMAIN, "imageID": IMAGE, "volumeID": VOLUME} | {lacks: "odd"}
    text = "".join(f"<ovirt-vm:{name}>{value}</ovirt-vm:{name}>" for name, value in ids.items())
    metadata = f"<ovirt-vm:device devtype='disk' name='vda'>{text}</ovirt-vm:device>"
    with pytest.raises(InvalidParameter, match=f"metadata of disk vda: {lacks}"):
        described(disks=[(disk()[0], metadata)])


# Its metadata


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("yes", True), ("1", True), ("no", False)])
def test_what_is_true_is_true_in_any_spelling(text: str, value: bool) -> None:
    metadata = (
        f"<ovirt-vm:launchPaused>{text}</ovirt-vm:launchPaused>"
        f"<ovirt-vm:ballooningEnabled>{text}</ovirt-vm:ballooningEnabled>"
        f"<ovirt-vm:destroy_on_reboot>{text}</ovirt-vm:destroy_on_reboot>"
    )
    found = read_metadata(root_of(metadata=metadata))
    assert (found.launch_paused, found.ballooning_enabled, found.destroy_on_reboot) == (value, value, value)


def test_metadata_that_say_nothing_are_the_defaults() -> None:
    assert read_metadata(root_of()) == VmMetadata({}, False, True, None, False, None, "auto_resume")
    assert VmMetadata() == read_metadata(root_of("<domain/>"))


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("9" * 18, int("9" * 18)), ("", None)])
def test_a_guaranteed_memory_is_a_whole_number(text: str, value: int | None) -> None:
    metadata = f"<ovirt-vm:minGuaranteedMemoryMb>{text}</ovirt-vm:minGuaranteedMemoryMb>"
    assert read_metadata(root_of(metadata=metadata)).min_guaranteed_memory_mib == value


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "9" * 19])
def test_a_guaranteed_memory_that_is_no_whole_number_is_refused(text: str) -> None:
    metadata = f"<ovirt-vm:minGuaranteedMemoryMb>{text}</ovirt-vm:minGuaranteedMemoryMb>"
    with pytest.raises(BadDomainXml, match=f"metadata minGuaranteedMemoryMb: '{text}' is not a whole number"):
        read_metadata(root_of(metadata=metadata))


def test_what_is_written_has_its_type_and_makes_its_place() -> None:
    root = root_of("<domain/>")
    write_value(root, "name", "x")
    write_value(root, "paused", True)
    write_value(root, "number", 1.5)
    again = parse(to_text(root), what="it")
    elements = [(e.tag.rpartition("}")[2], e.get("type"), e.text) for e in again.find("metadata")[0]]  # type: ignore[index]
    assert elements == [("name", None, "x"), ("paused", "bool", "True"), ("number", "float", "1.5")]


def test_a_text_that_is_written_over_a_number_has_no_type_of_it() -> None:
    root = root_of(metadata="<ovirt-vm:x type='int'>7</ovirt-vm:x>")
    write_value(root, "x", "seven")
    (element,) = [e for e in root.iter() if str(e.tag).endswith("}x")]
    assert (dict(element.attrib), element.text) == ({}, "seven")


# What a start changes


@pytest.mark.parametrize(("kind", "form"), [("file", "odd"), ("network", "raw")])
def test_a_source_that_nobody_knows_is_refused_by_its_disk(kind: str, form: str) -> None:
    told = f"invalid at disk vda: no disk of kind {kind} and format {form} is known"
    with pytest.raises(BadDomainXml, match=told):
        set_source(root_of(disks=[disk()]), "vda", Source("/x", kind, form))


def test_a_source_is_set_where_nothing_stood() -> None:
    root = root_of(disks=[("<disk><target dev='vda'/></disk>", "")])
    set_source(root, "vda", Source("/x", "block", "raw"))
    text = to_text(root.find("devices/disk"))
    assert '<driver name="qemu" type="raw"/><target dev="vda"/><source dev="/x"><seclabel' in text


def test_a_source_replaces_another_and_keeps_its_labels() -> None:
    labels = "<seclabel model='selinux' relabel='no'/><seclabel model='dac' relabel='yes'/>"
    device = (
        "<disk type='block'><driver name='qemu' type='raw' cache='none'/>"
        f"<source dev='/old' index='1'>{labels}</source><target dev='vda'/></disk>"
    )
    root = root_of(disks=[(device, ""), ("<disk><target dev='vdb'/></disk>", "")])
    set_source(root, "vda", Source("/new", "file", "cow"))
    first, second = root.findall("devices/disk")
    assert dict(first.find("source").attrib) == {"index": "1", "file": "/new"}
    assert [(s.get("model"), s.get("relabel")) for s in first.iter("seclabel")] == [("selinux", "no"), ("dac", "yes")]
    assert dict(first.find("driver").attrib) == {"name": "qemu", "type": "qcow2", "cache": "none"}
    assert second.find("source") is None


def test_all_that_only_kvm_has_leaves_an_emulated_guest() -> None:
    features = "<acpi/><kvm/><pmu state='on'/><hyperv/><hyperv/><ioapic driver='kvm'/>"
    timers = "".join(f"<timer name='{name}'/>" for name in ("tsc", "hypervclock", "kvmclock", "pit"))
    text = xml_of(more=f"<clock>{timers}</clock>").replace("<acpi/>", features)
    root = root_of(text)
    fit_to_emulation(root)
    assert [feature.tag for feature in root.find("features")] == ["acpi"]
    assert [timer.get("name") for timer in root.iter("timer")] == ["pit"]
    assert root.find("cpu") is None


def test_an_ioapic_of_qemu_stays() -> None:
    root = root_of(xml_of().replace("<acpi/>", "<ioapic driver='qemu'/>"))
    fit_to_emulation(root)
    assert root.find("features/ioapic") is not None


@pytest.mark.parametrize(
    ("cpu", "attributes", "left"),
    [
        ("<cpu mode='host-model'><model>x</model><topology/><numa/></cpu>", {"mode": "maximum"}, ["topology", "numa"]),
        ("<cpu match='exact' migratable='on'><vendor>x</vendor><cache/></cpu>", {"mode": "maximum"}, []),
        (
            "<cpu mode='custom' check='full'><model fallback='forbid'>x</model><maxphysaddr/></cpu>",
            {"mode": "custom", "match": "exact", "check": "none"},
            ["model"],
        ),
    ],
)
def test_a_cpu_is_one_that_can_be_emulated(cpu: str, attributes: dict[str, str], left: list[str]) -> None:
    root = root_of(more=cpu)
    fit_to_emulation(root)
    found = root.find("cpu")
    assert dict(found.attrib) == attributes
    assert [child.tag for child in found] == left
    assert all(model.get("fallback") == "allow" for model in found.findall("model"))


@pytest.mark.parametrize(("text", "ours"), [("destroy", True), (" destroy ", True), ("restart", False), ("", False)])
def test_only_a_reboot_that_destroys_is_taken_out(text: str, ours: bool) -> None:
    root = root_of(more=f"<on_reboot>{text}</on_reboot>")
    assert keep_through_reboot(root) is ours
    assert (root.find("on_reboot") is None) is ours


@pytest.mark.parametrize("word", ["LEASE-PATH", "LEASE-OFFSET", "PAYLOAD"])
@pytest.mark.parametrize("place", ["<x><source file='{}:a'/></x>", "<x><source>{}:a</source></x>"])
def test_a_placeholder_is_refused_by_its_word_and_element(word: str, place: str) -> None:
    with pytest.raises(BadDomainXml, match=f"invalid at <source>: the placeholder {word} is not supported yet"):
        fill_placeholders(root_of(devices=place.format(word)), FACTS)


def test_what_only_looks_like_a_placeholder_stays() -> None:
    entry = "<sysinfo><system><entry name='a'>my OS-NAME:</entry><entry name='b'/></system></sysinfo>"
    root = root_of(more=entry, devices="<x name='MY-PAYLOAD:'/>")
    fill_placeholders(root, FACTS)
    assert [e.text for e in root.iter("entry")] == ["my OS-NAME:", None]


@pytest.mark.parametrize(
    ("graphics", "secure"),
    [
        ("<graphics type='spice' tlsPort='5901'/>", True),
        ("<graphics type='spice' tlsPort='0'/>", False),
        ("<graphics type='spice' tlsPort=''/>", False),
        ("<graphics type='spice' tlsPort='-1'/>", False),
        ("<graphics type='spice'><channel name='main' mode='insecure'/></graphics>", False),
        ("<graphics type='spice' defaultMode='any'/>", False),
        ("<graphics type='vnc' tlsPort='5901'/>", False),
    ],
)
def test_a_console_that_needs_certificates(graphics: str, secure: bool) -> None:
    assert read_named(root_of(devices=graphics)).spice_tls is secure


def test_a_domain_without_devices_names_nothing() -> None:
    named = read_named(root_of("<domain/>"))
    assert (named.networks, named.bridges, named.filters, named.folders) == (frozenset(),) * 4


def test_a_relative_path_and_a_socket_that_others_make_are_no_folders_of_ours() -> None:
    devices = (
        "<serial type='unix'><source path='relative/x.sock'/></serial>"
        "<serial type='unix'><source mode='bind' path='/run/serial/x.sock'/></serial>"
        "<console type='unix'><source mode='connect' path='/run/there/x.sock'/></console>"
        "<channel type='unix'><source path='/run/channel/x.sock'/></channel>"
        "<channel type='unix'><source mode='bind'/></channel>"
    )
    assert read_named(root_of(devices=devices)).folders == {"/run/serial", "/run/channel"}

# SPDX-License-Identifier: GPL-2.0-or-later
"""What an engine's XML names on the host and nobody made is told by name before QEMU is started."""

from __future__ import annotations

import pytest

from vdsm.common.xml import parse
from vdsm.virt.domain_xml.drives import Source, set_source
from vdsm.virt.domain_xml.named import Named, read_named

from .fakes import VM, World, disk, until, xml_of

CHANNELS = "/var/lib/libvirt/qemu/channels"
NIC = (
    "<interface type='bridge'><source bridge='{bridge}'/><mac address='56:6f:00:37:00:01'/>"
    "<filterref filter='vdsm-no-mac-spoofing'/></interface>"
)
SPICE = (
    "<graphics type='spice' port='-1' tlsPort='-1'><channel name='main' mode='secure'/>"
    "<listen type='network' network='vdsm-ovirtmgmt'/></graphics>"
)
CHANNEL = (
    f"<channel type='unix'><source mode='bind' path='{CHANNELS}/{VM}.org.qemu.guest_agent.0'/>"
    "<target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
)
OF_AN_ENGINE = SPICE + CHANNEL + NIC.format(bridge=";vdsmdummy;") + NIC.format(bridge="ovirtmgmt")


def make_all(world: World) -> None:
    for bridge in (";vdsmdummy;", "ovirtmgmt"):
        (world.root / "sys/class/net" / bridge).mkdir(parents=True)
    (world.root / CHANNELS[1:]).mkdir(parents=True)
    (world.root / "etc/libvirt").mkdir(parents=True)
    (world.root / "etc/libvirt/qemu.conf").write_text("#spice_tls = 0\nspice_tls = 1\n")
    world.hypervisor.networks.add("vdsm-ovirtmgmt")
    world.hypervisor.known_filters.add("vdsm-no-mac-spoofing")


async def start(world: World, devices: str) -> str:
    """The exit message; empty when it runs."""
    vm = await world.vms.create(VM, xml_of(disks=[disk()], devices=devices))
    await until(lambda: vm.status.reported != "WaitForLaunch" and vm.status.reported != "Powering down")
    return vm.status.exit.message if vm.status.exit else ""


async def test_a_host_that_has_all_starts_the_vm(world: World) -> None:
    make_all(world)
    assert await start(world, OF_AN_ENGINE) == ""
    assert "launch" in world.hypervisor.calls


async def test_all_that_is_missing_is_told_at_once_and_nothing_is_left(world: World) -> None:
    told = await start(world, OF_AN_ENGINE)
    assert world.hypervisor.calls == []
    assert world.storage.prepared == set()
    for name in (";vdsmdummy;", "'ovirtmgmt'", CHANNELS, "TLS for SPICE", "vdsm-ovirtmgmt", "vdsm-no-mac-spoofing"):
        assert name in told


@pytest.mark.parametrize(
    ("take_away", "told"),
    [
        (lambda w: w.hypervisor.networks.clear(), "network 'vdsm-ovirtmgmt' (virsh net-define"),
        (lambda w: w.hypervisor.known_filters.clear(), "filter 'vdsm-no-mac-spoofing' (virsh nwfilter-define"),
        (lambda w: (w.root / "sys/class/net/;vdsmdummy;").rmdir(), "ip link add ';vdsmdummy;' type bridge"),
        (lambda w: (w.root / "sys/class/net/ovirtmgmt").rmdir(), "'ovirtmgmt' (attach the network"),
        (lambda w: (w.root / CHANNELS[1:]).rmdir(), f"folder {CHANNELS} (make it"),
        (lambda w: (w.root / "etc/libvirt/qemu.conf").write_text("# spice_tls = 1\n"), "spice_tls=1"),
        (lambda w: (w.root / "etc/libvirt/qemu.conf").unlink(), "spice_tls=1"),
    ],
)
async def test_each_is_told_with_what_to_do(world: World, take_away: object, told: str) -> None:
    make_all(world)
    take_away(world)  # type: ignore[operator]
    message = await start(world, OF_AN_ENGINE)
    assert told in message
    assert ";" not in message.replace(";vdsmdummy;", "")  # one thing only


async def test_what_a_hook_replaces_need_not_be_there(world: World) -> None:
    async def script(xml: str) -> str:
        (world.root / "sys/class/net/br-int").mkdir(parents=True)
        return xml.replace(";vdsmdummy;", "br-int").replace('<filterref filter="vdsm-no-mac-spoofing"/>', "")

    world.hooks.scripts["before_vm_start"] = script
    assert await start(world, NIC.format(bridge=";vdsmdummy;")) == ""


@pytest.mark.parametrize(
    "devices",
    [
        "<graphics type='spice' port='-1' tlsPort='-1'><listen type='address' address='192.0.2.1'/></graphics>",
        "<graphics type='vnc' port='-1'/>",
        "<interface type='bridge'><source bridge='ovs'/><virtualport type='openvswitch'/></interface>",
        "<channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channel/target/x/y'/></channel>",
        "<channel type='unix'><source mode='connect' path='/run/other/x'/></channel>",
        "<channel type='unix'><target type='virtio' name='x'/></channel>",
        "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>",
        "<serial type='file'><source path='/var/log/x'/></serial>",
    ],
)
async def test_what_nobody_has_to_make_is_not_asked_for(world: World, devices: str) -> None:
    assert await start(world, devices) == ""


def test_all_of_a_kind_are_read() -> None:
    console = "<console type='unix'><source path='/run/console/x.sock'/></console>"
    network = "<interface type='network'><source network='default'/></interface>"
    secure = "<graphics type='spice' defaultMode='secure'/>"
    assert read_named(parse(xml_of(devices=console + network + secure), what="it")) == Named(
        networks=frozenset({"default"}),
        bridges=frozenset(),
        filters=frozenset(),
        folders=frozenset({"/run/console"}),
        spice_tls=True,
    )


async def test_a_bridge_is_a_name_and_no_path(world: World) -> None:
    (world.root / "sys/class/net").mkdir(parents=True)
    assert "'../net'" in await start(world, NIC.format(bridge="../net"))


def test_layers_that_another_host_saw_are_dropped() -> None:
    element, metadata = disk()
    layers = (
        "<backingStore type='file'><format type='raw'/><source file='/rhev/elsewhere'/><backingStore/></backingStore>"
        "<mirror type='file' file='/rhev/copy'/>"
    )
    root = parse(xml_of(disks=[(element.replace("</disk>", f"{layers}</disk>"), metadata)]), what="it")
    set_source(root, "vda", Source("/rhev/here", "file", "cow"))
    assert [element.tag for element in root.findall("devices/disk/*")] == ["driver", "source", "target"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operator's domain XML may say: everything that an engine writes for a plain VM, and nothing of the host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from vdsm.common.errors import AgentError
from vdsm.common.xml import parse
from vdsm.virt.domain_xml import allowed, allowlist
from vdsm.virt.domain_xml.allowlist import XmlNotAllowed

VM = "6a3b1f0e-0000-4000-8000-000000000001"
POOL = "6a3b1f0e-0000-4000-8000-00000000000a"
DOMAIN = "6a3b1f0e-0000-4000-8000-00000000000b"
IMAGE = "6a3b1f0e-0000-4000-8000-00000000000c"
VOLUME = "6a3b1f0e-0000-4000-8000-00000000000d"
PATH = f"/rhev/data-center/{POOL}/{DOMAIN}/images/{IMAGE}/{VOLUME}"
ISO = f"/rhev/data-center/{POOL}/{DOMAIN}/images/11111111-1111-1111-1111-111111111111/debian-12.iso"

# every part that an engine writes for a VM with disk, CD, network, consoles, firmware and CPU topology
GOOD = f"""
<domain type="kvm" xmlns:ovirt-tune="http://ovirt.org/vm/tune/1.0" xmlns:ovirt-vm="http://ovirt.org/vm/1.0"
 xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
 <name>web-01</name><uuid>{VM}</uuid>
 <memory>1048576</memory><currentMemory>1048576</currentMemory><iothreads>1</iothreads>
 <maxMemory slots="16">4194304</maxMemory><vcpu current="2">16</vcpu>
 <sysinfo type="smbios"><system>
  <entry name="manufacturer">oVirt</entry><entry name="product">OS-NAME:</entry>
  <entry name="version">OS-VERSION:</entry><entry name="serial">HOST-SERIAL:</entry><entry name="uuid">{VM}</entry>
 </system></sysinfo>
 <clock offset="variable" adjustment="-3600"><timer name="rtc" tickpolicy="catchup"/>
  <timer name="hpet" present="no"/></clock>
 <features><acpi/><vmcoreinfo/><smm state="on"/>
  <hyperv><relaxed state="on"/><spinlocks state="on" retries="8191"/></hyperv></features>
 <cpu match="exact"><model>Skylake-Server</model><feature name="vmx" policy="require"/>
  <topology cores="1" threads="1" sockets="16"/><numa><cell id="0" cpus="0,1" memory="1048576"/></numa></cpu>
 <cputune><vcpupin vcpu="0" cpuset="0-1"/><vcpupin vcpu="1" cpuset="0-1"/></cputune>
 <qemu:capabilities><qemu:add capability="blockdev"/><qemu:add capability="incremental-backup"/></qemu:capabilities>
 <os><type arch="x86_64" machine="pc-q35-rhel8.6.0">hvm</type><boot dev="hd"/><smbios mode="sysinfo"/>
  <loader readonly="yes" secure="yes" type="pflash">/usr/share/OVMF/OVMF_CODE.secboot.fd</loader>
  <nvram template="/usr/share/OVMF/OVMF_VARS.secboot.fd">/var/lib/libvirt/qemu/nvram/{VM}.fd</nvram>
  <bios useserial="yes"/></os>
 <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
 <devices>
  <input type="tablet" bus="usb"/>
  <channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/>
   <source mode="bind" path="/var/lib/libvirt/qemu/channels/{VM}.org.qemu.guest_agent.0"/></channel>
  <channel type="spicevmc"><target type="virtio" name="com.redhat.spice.0"/></channel>
  <graphics type="vnc" port="-1" autoport="yes" passwd="*****" passwdValidTo="1970-01-01T00:00:01"
   keymap="en-us">
   <listen type="network" network="vdsm-ovirtmgmt"/></graphics>
  <graphics type="spice" port="-1" autoport="yes" tlsPort="-1"><channel name="main" mode="secure"/>
   <listen type="network" network="vdsm-ovirtmgmt"/></graphics>
  <controller type="usb" model="qemu-xhci" index="0" ports="8"/>
  <controller type="scsi" model="virtio-scsi" index="0"><driver iothread="1"/><alias name="ua-{IMAGE}"/></controller>
  <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
  <memballoon model="virtio"><stats period="5"/>
   <address bus="0x04" domain="0x0000" function="0x0" slot="0x00" type="pci"/>
  </memballoon>
  <sound model="ich6"/><video><model type="vga" vram="16384" heads="1"/></video>
  <watchdog model="i6300esb" action="reset"/>
  <console type="unix"><source path="/var/run/ovirt-vmconsole-console/{VM}.sock" mode="bind"/>
   <target type="serial" port="0"/></console>
  <tpm model="tpm-crb"><backend type="emulator" version="2.0"/></tpm>
  <interface type="bridge"><model type="virtio"/><link state="up"/><source bridge="ovirtmgmt"/>
   <driver queues="4" name="vhost"/>
   <mac address="56:6f:1a:2b:00:01"/><mtu size="1500"/><filterref filter="clean-traffic"/><bandwidth/></interface>
  <disk type="file" device="cdrom" snapshot="no"><driver name="qemu" type="raw" error_policy="report"/>
   <source file="{ISO}" startupPolicy="optional"><seclabel model="dac" type="none" relabel="no"/></source>
   <target dev="sdc" bus="sata"/><readonly/></disk>
  <disk type="file" device="disk" snapshot="no"><target dev="vda" bus="virtio"/>
   <source file="{PATH}"><seclabel model="dac" type="none" relabel="no"/></source>
   <driver name="qemu" io="threads" type="qcow2" error_policy="stop" cache="none" discard="unmap"/>
   <boot order="1"/><serial>{IMAGE}</serial><iotune><total_bytes_sec>1000</total_bytes_sec></iotune></disk>
 </devices>
 <pm><suspend-to-disk enabled="no"/></pm>
 <metadata><ovirt-tune:qos/>
  <ovirt-vm:vm><ovirt-vm:minGuaranteedMemoryMb type="int">512</ovirt-vm:minGuaranteedMemoryMb>
   <ovirt-vm:clusterVersion>4.7</ovirt-vm:clusterVersion><ovirt-vm:custom/>
   <ovirt-vm:device mac_address="56:6f:1a:2b:00:01" devtype="interface"><ovirt-vm:custom/></ovirt-vm:device>
   <ovirt-vm:device devtype="disk" name="vda"><ovirt-vm:poolID>{POOL}</ovirt-vm:poolID>
    <ovirt-vm:volumeID>{VOLUME}</ovirt-vm:volumeID><ovirt-vm:shared>exclusive</ovirt-vm:shared>
    <ovirt-vm:imageID>{IMAGE}</ovirt-vm:imageID><ovirt-vm:domainID>{DOMAIN}</ovirt-vm:domainID></ovirt-vm:device>
   <ovirt-vm:launchPaused>false</ovirt-vm:launchPaused><ovirt-vm:resumeBehavior>auto_resume</ovirt-vm:resumeBehavior>
  </ovirt-vm:vm></metadata>
</domain>"""


def refused(text: str, custom: frozenset[str] = frozenset()) -> str:
    with pytest.raises(XmlNotAllowed) as caught:
        allowlist.check(text, VM, custom)
    return str(caught.value)


def test_what_an_engine_writes_for_a_plain_vm_is_allowed() -> None:
    allowlist.check(GOOD, VM, ())


@pytest.mark.parametrize(
    ("part", "by", "told"),
    [
        # files of the host
        (f'file="{PATH}"', 'file="/etc/shadow"', "source[1]/@file may not be '/etc/shadow'"),
        (f'file="{PATH}"', f'file="{PATH}/../../../../../../etc/shadow"', "@file may not be"),
        (f'file="{PATH}"', 'dev="/dev/sda"', "@dev may not be '/dev/sda'"),
        (f'file="{ISO}"', f'file="{PATH}"', "is no image of an ISO domain"),
        (f'file="{ISO}"', f'file="{ISO[:-13]}../{IMAGE}/{VOLUME}"', "@file may not be"),
        ("<readonly/>", '<readonly/><driver type="qcow2"/>', "more than one driver"),
        ('type="raw" error_policy="report"', 'type="qcow2"', "a CD without image is raw"),
        (
            "<iotune>",
            '<backingStore type="file"><source file="/etc/shadow"/></backingStore><iotune>',
            "backingStore[1] is not",
        ),
        ("<iotune>", '<source file="/etc/shadow"/><iotune>', "more than one source"),
        ('device="cdrom"', 'device="floppy"', "disk 'sdc' has no image in the metadata"),
        ('<disk type="file" device="cdrom"', '<disk type="block" device="cdrom"', "a CD without image is a file"),
        (f'<source file="{ISO}"', f'<source file="{ISO}" dev="{PATH}"', "a CD without image is a file"),
        ("<iotune>", '<mirror file="/etc/x"/><iotune>', "mirror[1] is not on the list"),
        ('device="disk" snapshot', 'device="lun" snapshot', "@device may not be 'lun'"),
        ('type="file" device="disk"', 'type="network" device="disk"', "@type may not be 'network'"),
        ('name="vda"><ovirt-vm:poolID>', 'name="vdz"><ovirt-vm:poolID>', "no disk with this target"),
        (
            f"<ovirt-vm:imageID>{IMAGE}</ovirt-vm:imageID><ovirt-vm:domainID>{DOMAIN}</ovirt-vm:domainID>",
            "",
            "has no image",
        ),
        (
            "<ovirt-vm:launch",
            '<ovirt-vm:device devtype="disk" name="vda"/><ovirt-vm:launch',
            "vda: it stands there twice",
        ),
        ("<boot dev", "<kernel>/etc/shadow</kernel><boot dev", "kernel[1] is not on the list"),
        ("/usr/share/OVMF/OVMF_CODE.secboot.fd", "/etc/shadow", "may not be '/etc/shadow'"),
        ("/usr/share/OVMF/OVMF_VARS.secboot.fd", "/usr/share/OVMF/../../../etc/shadow.fd", "@template may not be"),
        (f"nvram/{VM}.fd", f"nvram/{POOL}.fd", "may not be"),
        ('<sound model="ich6"/>', '<filesystem type="mount"><source dir="/"/></filesystem>', "filesystem[1] is not"),
        ('<target type="serial"', '<log file="/etc/x"/><target type="serial"', "log[1] is not on the list"),
        (f"ovirt-vmconsole-console/{VM}.sock", "../etc/x", "@path may not be"),
        (f"channels/{VM}.", f"channels/{POOL}.", "@path may not be"),
        ('console type="unix"', 'console type="file"', "@type may not be 'file'"),
        ("/dev/urandom", "/dev/mem", "may not be '/dev/mem'"),
        ("<on_crash>destroy", "<on_crash>coredump-destroy", "may not be 'coredump-destroy'"),
        ('action="reset"', 'action="dump"', "@action may not be 'dump'"),
        ('backend type="emulator"', 'backend type="passthrough"', "@type may not be"),
        ("<link state", '<script path="/tmp/x"/><link state', "script[1] is not on the list"),
        ("<link state", '<backend tap="/dev/x"/><link state', "backend[1] is not on the list"),
        ('interface type="bridge"', 'interface type="ethernet"', "@type may not be 'ethernet'"),
        ("<mtu size", '<rom file="/etc/shadow"/><mtu size', "@file is not on the list"),
        (
            'type="network" network="vdsm-ovirtmgmt"/></graphics>\n  <graphics',
            'type="socket" socket="/x"/></graphics>\n  <graphics',
            "may not be",
        ),
        ("<devices>", '<devices><hostdev mode="subsystem" type="pci"/>', "hostdev[1] is not on the list"),
        ("<devices>", "<devices><lease><key>k</key></lease>", "lease[1] is not on the list"),
        ("<devices>", '<devices><shmem name="x"/>', "shmem[1] is not on the list"),
        # another program, QEMU's command line, security
        ("<devices>", "<devices><emulator>/tmp/evil</emulator>", "emulator[1] is not on the list"),
        ("<pm>", '<qemu:commandline><qemu:arg value="-x"/></qemu:commandline><pm>', "qemu:commandline[1] is not on"),
        (
            "<pm>",
            '<q:commandline xmlns:q="http://libvirt.org/schemas/domain/qemu/1.0"/><pm>',
            "commandline[1] is not on",
        ),
        (
            "<pm>",
            '<override xmlns="http://libvirt.org/schemas/domain/qemu/1.0"/><pm>',
            "override[1] is not on the list",
        ),
        (
            "<pm>",
            '<commandline xmlns="http://libvirt.org/schemas/domain/xen/1.0"/><pm>',
            "unknown:commandline[1] is not",
        ),
        ("<pm>", '<seclabel type="none"/><pm>', "seclabel[1] is not on the list"),
        (
            'model="dac" type="none" relabel="no"/></source>\n   <driver name',
            'model="selinux" type="none"/></source><driver name',
            "@model may not be",
        ),
        ('capability="blockdev"', 'capability="x"', "@capability may not be 'x'"),
        ('<domain type="kvm"', '<domain type="xen"', "@type may not be 'xen'"),
        (f"<uuid>{VM}", f"<uuid>{POOL}", "uuid[1] may not be"),
        (f"<uuid>{VM}", f"<uuid><!-- -->{POOL}", "text between its elements"),
        (
            "<ovirt-vm:custom/>\n",
            "<ovirt-vm:custom><ovirt-vm:hook>x</ovirt-vm:hook></ovirt-vm:custom>",
            "custom property 'hook'",
        ),
        ("<ovirt-vm:custom/>\n", "<custom><hook>x</hook></custom>", "custom[1] is not on the list"),
        ("<ovirt-vm:custom/>\n", "<device devtype='disk' name='sdz'/>", "device[1] is not on the list"),
        ("<ovirt-tune:qos/>", '<x xmlns="y"/>', "unknown:x[1] is not on the list"),
        ("<features>", "<features><kvm><qemu:x state='on'/></kvm>", "qemu:x[1] is not on the list"),
    ],
)
def test_what_names_the_host_is_refused_with_its_place(part: str, by: str, told: str) -> None:
    assert GOOD.count(part) >= 1
    assert told in refused(GOOD.replace(part, by, 1))


def test_custom_properties_that_the_administrator_listed_pass() -> None:
    text = GOOD.replace(
        "<ovirt-vm:custom/>\n", "<ovirt-vm:custom><ovirt-vm:color>blue</ovirt-vm:color></ovirt-vm:custom>", 1
    )
    allowlist.check(text, VM, {"color"})
    assert "custom property 'color'" in refused(text)


def test_a_console_s_password_is_not_told() -> None:
    assert "hunter" not in refused(GOOD.replace('passwd="*****"', 'passwd="hunter/2"'))


def test_a_long_name_is_told_in_short() -> None:
    assert len(refused(GOOD.replace("<devices>", f"<devices {'x' * 49_000}='1'>"))) < 1000


def test_a_message_names_a_few_problems_and_says_that_there_are_more() -> None:
    text = GOOD.replace("<devices>", "<devices>" + "<emulator>/x</emulator>" * 500)
    assert refused(text).count("emulator") == allowlist.TOLD
    assert refused(text).endswith("and more")


WORDS = ["file", "dev", "path", "type", "source", "driver", "disk", "emulator", "commandline", "domain", "vda"]
VALUES = ["/etc/shadow", "file", "raw", "../x", PATH, VM, "1", "on", "qemu", "network", "\n", "a" * 300]


@given(st.data())
def test_no_change_of_a_good_domain_lets_a_host_path_through(data: st.DataObject) -> None:
    """Elements and attributes are added and changed at random; whatever passes names no path but those of the table."""
    root = parse(GOOD, what="test")
    for _ in range(data.draw(st.integers(1, 4))):
        element = data.draw(st.sampled_from([e for e in root.iter() if isinstance(e.tag, str)]))
        name, value = data.draw(st.sampled_from(WORDS)), data.draw(st.sampled_from(VALUES))
        match data.draw(st.sampled_from(["attribute", "child", "text", "copy", "rename"])):
            case "attribute":
                element.set(name, value)
            case "child":
                etree.SubElement(element, name, {data.draw(st.sampled_from(WORDS)): value})
            case "text":
                element.text = value
            case "copy":
                other = data.draw(st.sampled_from([e for e in root.iter() if isinstance(e.tag, str)]))
                if other not in element.iterancestors() and other is not element and other is not root:
                    element.append(other)
            case _:
                element.tag = name
    try:
        allowlist.check(etree.tostring(root, encoding="unicode"), VM, ())
    except AgentError:
        return
    for element in root.iter():
        if isinstance(element.tag, str):
            for text in [*(str(value) for value in element.attrib.values()), (element.text or "").strip()]:
                if "/" in text:
                    assert text in KNOWN, text


KNOWN = {
    text
    for element in parse(GOOD, what="test").iter()
    if isinstance(element.tag, str)
    for text in [*(str(value) for value in element.attrib.values()), (element.text or "").strip()]
    if "/" in text
}


@given(st.text(max_size=60))
def test_no_text_crashes_it(text: str) -> None:
    with pytest.raises(AgentError):
        allowlist.check(text, VM, ())


def test_deep_and_wide_trees_end_quickly() -> None:
    refused("<domain>" + "<devices>" * 200 + "</devices>" * 200 + "</domain>")
    refused("<domain type='kvm'>" + "<x/>" * 100_000 + "</domain>")


@pytest.mark.parametrize("path", sorted(allowed.TABLE))
def test_every_row_hangs_below_one_that_is_allowed(path: str) -> None:
    parent = path.rpartition("/")[0]
    assert parent in allowed.TABLE or parent.endswith("/*") or parent in (
        "features/kvm",
        "features/hyperv",
        "features/hyperv/stimer",
        "features/smm",
    )  # fmt: skip
    for text in allowed.TABLE[path].values():
        allowed.pattern(text, VM)


def test_a_cd_is_refused_with_the_path_that_it_shows() -> None:
    told = refused(GOOD.replace(f'file="{ISO}"', f'file="{PATH}"'))
    assert f"disk 'sdc': '/rhev/data-center/{POOL}/" in told and "is no image of an ISO domain" in told


def test_a_cd_whose_driver_says_no_format_is_raw() -> None:
    allowlist.check(GOOD.replace('<driver name="qemu" type="raw" error', '<driver name="qemu" error'), VM, ())

# SPDX-License-Identifier: GPL-2.0-or-later
"""The hooks that we ship, run by the agent's own runner under the system's Python."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from lxml import etree

from vdsm.hooking.dry_run import TriedVm
from vdsm.hooking.errors import HookFailed

SHIPPED = Path(__file__).resolve().parents[3] / "hooks"
VM_ID = "5a3b1c5e-7b0c-4b56-9d36-0f2f4b7f0a01"
DOMAIN = f"""<domain type="qemu"><name>web</name><uuid>{VM_ID}</uuid><vcpu current="1">4</vcpu>
<sysinfo type="smbios"><system><entry name="serial">old</entry><entry name="product">RHEL</entry></system></sysinfo>
<os><type>hvm</type></os><devices><disk><serial>disk</serial></disk></devices></domain>"""


def ship(paths, name):
    target = Path(paths.hooks, "before_vm_start")
    target.mkdir(mode=0o755, exist_ok=True)
    shutil.copy(SHIPPED / name / "before_vm_start" / f"50_{name}", target)


async def run(hooks, **custom):
    return etree.fromstring((await hooks.run_xml("before_vm_start", DOMAIN, vm=TriedVm(VM_ID, custom))).encode())


@pytest.fixture(autouse=True)
def with_system_python():
    if not Path("/usr/bin/python3").exists():
        pytest.skip(f"no /usr/bin/python3 here, only {sys.executable}")


async def test_smbios_sets_entries_and_keeps_the_others(hooks, paths):
    ship(paths, "smbios")
    root = await run(hooks, smbios="{'serial':'4^7 \"11\" <&>','family':'web'}^{'vendor':'Acme'}")
    system = {e.get("name"): e.text for e in root.findall("sysinfo/system/entry")}
    assert system == {"serial": '4^7 "11" <&>', "product": "RHEL", "family": "web"}
    assert [e.tag for e in root.find("sysinfo")] == ["bios", "system"], "the order that libvirt wants"
    assert root.findtext("sysinfo/bios/entry[@name='vendor']") == "Acme"
    assert root.find("os/smbios").get("mode") == "sysinfo"
    assert root.findtext("devices/disk/serial") == "disk"


async def test_smbios_bios_alone(hooks, paths):
    ship(paths, "smbios")
    root = await run(hooks, smbios="^{'vendor':'Acme'}")
    assert root.findtext("sysinfo/bios/entry[@name='vendor']") == "Acme"
    assert root.findtext("sysinfo/system/entry[@name='serial']") == "old"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("__import__('os').system('touch {place}')", "is not of the form {'name': 'value'}"),
        ("{'serial': open('/etc/passwd').read()}", "is not of the form"),
        ("{'serial': 'x'", "is not of the form"),
        ("['serial']", "is not of the form"),
        ("{'uuid': 'x'}", "'uuid' is no system entry; there are manufacturer"),
        ("{'serial': 7}", "must be text in quotes, not 7"),
        ("{'serial': 'a\\nb'}", "has a control character"),
        ("{}^{}", "it names no entry"),
        ("{}^{}^{}", "it has 3 parts"),
        ("(" * 5000, "is not of the form"),
    ],
)
async def test_smbios_refuses_what_it_cant_read(hooks, paths, tmp_path, text, complaint):
    ship(paths, "smbios")
    with pytest.raises(HookFailed) as failure:
        await run(hooks, smbios=text.replace("{place}", f"{tmp_path}/evil"))
    assert failure.value.code == 2
    assert "50_smbios ended with exit code 2: smbios: " in str(failure.value)
    assert complaint in failure.value.stderr
    assert not (tmp_path / "evil").exists(), "a property is never run as code"


async def test_pincpu_sets_the_cpuset(hooks, paths):
    ship(paths, "pincpu")
    vcpu = (await run(hooks, pincpu="0-4, ^3")).find("vcpu")
    assert (vcpu.get("cpuset"), vcpu.get("current"), vcpu.text) == ("0-4,^3", "1", "4")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x", "'x' is no CPU"),
        ("1,,2", "'' is no CPU"),
        ("4-1", "the range 4-1 goes backwards"),
        ("1,^1", "leaves no CPU"),
        ("99999", "CPU 99999 is above"),
        ("8000", "this host has none of the CPUs 8000"),
        ("0;id", "is no CPU"),
    ],
)
async def test_pincpu_refuses_what_it_cant_read(hooks, paths, text, complaint):
    ship(paths, "pincpu")
    with pytest.raises(HookFailed) as failure:
        await run(hooks, pincpu=text)
    assert failure.value.code == 2
    assert complaint in str(failure.value)


@pytest.mark.parametrize("name", ["smbios", "pincpu"])
async def test_without_property_nothing_changes(hooks, paths, name):
    ship(paths, name)
    assert await hooks.run_xml("before_vm_start", DOMAIN, vm=TriedVm(VM_ID)) == DOMAIN
    assert (SHIPPED / name / "README.md").exists()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's steps, in order. Each checks what it shows: a demo that ends with 0 has proved all of it.

The host is driven through its API. What lies outside an agent's API is done as its owner would: a file of the user is
copied into the prepared disk as user 36, the hook script is dropped into its directory.
"""

from __future__ import annotations

import difflib
import os
import secrets
import shutil
import uuid
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lxml import etree

from contrib.demo import cable
from contrib.demo.seen import SeenVm
from contrib.demo.telling import Story
from contrib.lab import engine, vm_xml
from contrib.lab.control import HostFailed
from contrib.lab.guest import Guest
from contrib.lab.host import PrivateHost
from vdsm.client import Client

HOOKS = "/usr/libexec/vdsm/hooks"
HOOK = "50_shelf"
GUEST_ADDRESS = "10.37.0.50"
DISK_BYTES = 2 << 30
BOOT_S = 60.0


@dataclass
class Demo:
    story: Story
    host: PrivateHost
    guest: Guest
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    disk_token: str = field(default_factory=lambda: secrets.token_hex(4))
    pool: engine.Pool | None = None
    volume: engine.Volume | None = None
    vm: vm_xml.Vm | None = None
    # machines whose kernel has no bridges can still see the rest
    networked: bool = True

    @property
    def seen(self) -> SeenVm:
        assert self.vm is not None
        return SeenVm(self.host, self.vm)

    async def build(self, client: Client) -> None:
        """From a bare host to a running VM."""
        await self._capabilities(client)
        if self.networked:
            await cable.attach(client, self.story, self.host)
        await self._storage(client)
        await self._disk(client)
        self._hook()
        await self._start_vm(client)
        await self._read_console()
        await self._show_hook(client)
        await self._statistics(client)

    async def take_down(self, client: Client) -> None:
        """Back to a bare host."""
        await self._shut_down(client)
        await self._remove(client)

    async def _capabilities(self, client: Client) -> None:
        with self.story.step("Ask the host what it can do"):
            caps = await client.call("Host.getCapabilities")
            self.story.call("Host.getCapabilities", f"{len(caps)} entries")
            self.story.say(f"CPU       {caps['cpuModel']}, {caps['cpuCores']} cores; memory {caps['memSize']} MiB")
            self.story.say(f"KVM       {caps['kvmEnabled']}: guests run as libvirt type {vm_xml.domain_type()}")
            self.story.say(f"NICs      {', '.join(caps['nics'])}; networks: {', '.join(caps['networks']) or 'none'}")

    async def _storage(self, client: Client) -> None:
        connection = engine.posix_connection()
        with self.story.step("Make a shared storage domain (POSIX file system, sanlock leases) and a pool"):
            domain_id = await engine.create_domain(client, engine.POSIXFS, connection)
            self.story.call("StoragePool.connectStorageServer", f"{connection['connection']} mounted")
            self.story.call("StorageDomain.create", f"format V5, {domain_id}")
            pool_id = await engine.create_pool(client, domain_id)
            self.story.call("StoragePool.create", pool_id)
            await engine.connect_pool(client, pool_id, domain_id)
            self.story.call("StoragePool.connect", "host id 1 in the domain's lockspace")
        with self.story.step("Elect this host storage pool manager (SPM)"):
            await engine.become_spm(client, pool_id)
            status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": pool_id})
            self.story.call("StoragePool.spmStart", f"now {status['spmStatus']}, lease version {status['spmLver']}")
            await client.call("StorageDomain.activate", {"storagedomainID": domain_id, "storagepoolID": pool_id})
            self.pool = engine.Pool(pool_id, domain_id, engine.POSIXFS, connection)
            resources = self.host.run(["sanlock", "client", "status"]).stdout.decode()
            self.story.quote("\n".join(line[:88] for line in resources.splitlines() if line[:2] in ("s ", "r ")))

    async def _disk(self, client: Client) -> None:
        assert self.pool is not None
        with self.story.step("Create a thin disk and put a word of this run into it"):
            volume = await engine.create_volume(client, self.pool, size_bytes=DISK_BYTES)
            self.volume = volume
            self.story.call("Volume.create", f"qcow2, {DISK_BYTES >> 30} GiB, by an SPM task")
            path = (await client.call("Image.prepare", volume.ids))["path"]
            self.story.call("Image.prepare", path)
            content = self.host.path("/tmp/word.img")
            content.write_bytes(f"lab-write {self.disk_token}".encode().ljust(1 << 20, b"\0"))
            self.host.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", "/tmp/word.img", path], user="vdsm")
            await self._teardown(client, volume)
            info = await client.call("Volume.getInfo", volume.ids)
            self.story.call("Volume.getInfo", f"{info['format']}, {info['type']}, capacity {info['capacity']}")
            self.story.say(
                f"on disk {int(info['truesize']) >> 10} KiB of {DISK_BYTES >> 20} MiB; the word is {self.disk_token}"
            )

    async def _teardown(self, client: Client, volume: engine.Volume) -> None:
        await client.call("Image.teardown", volume.ids)

    def _hook(self) -> None:
        with self.story.step("Install a hook script"):
            folder = self.host.path(f"{HOOKS}/before_vm_start")
            folder.mkdir(parents=True, exist_ok=True)
            script = Path(__file__).with_name(HOOK)
            target = folder / HOOK
            shutil.copyfile(script, target)
            target.chmod(0o755)
            self.story.say(f"{HOOKS}/before_vm_start/{HOOK}")
            self.story.quote("\n".join(script.read_text().splitlines()[4:]).strip())

    async def _start_vm(self, client: Client) -> None:
        assert self.volume is not None
        cmdline = f"console=ttyS0 quiet lab.token={self.token} lab.address={GUEST_ADDRESS}/24"
        self.vm = vm_xml.Vm(
            str(uuid.uuid4()),
            "demo-vm",
            self.guest.kernel,
            self.guest.initrd,
            cmdline,
            disks=[self.volume.disk()],
            bridges=[cable.NETWORK] if self.networked else [],
            custom={"shelf": self.token},
        )
        with self.story.step("Create a VM from domain XML"):
            answer = await engine.create_vm(client, self.vm)
            self.story.call("VM.create", f"answers at once: {answer['status']}")
            status = await engine.wait_vm(client, self.vm.vm_id, "Up", "Powering up")
            self.story.call("Host.getVMList", f"{self.vm.name} is {status}")
            self.story.say(f"QEMU runs as {self.seen.qemu_user()}")

    async def _read_console(self) -> None:
        seen = self.seen
        with self.story.step("Read the guest's own words from its serial console"):
            expected = [
                f"guest: kernel command line says {self.token}",
                f"guest: disk says lab-write {self.disk_token}",
                f"guest: hardware says shelf {self.token}",
                "guest: alive 1",
            ]
            if self.networked:
                expected.insert(-1, f"guest: network up as {GUEST_ADDRESS}/24")
            for line in expected:
                await engine.until(line, partial(seen.hears, line), timeout_s=BOOT_S)
                self.story.quote(line)
            if self.networked:
                self.host.run_outside(["busybox", "ping", "-c", "1", "-W", "3", GUEST_ADDRESS])
                self.story.say(f"the gateway reaches the guest at {GUEST_ADDRESS}")

    async def _show_hook(self, client: Client) -> None:
        assert self.vm is not None
        with self.story.step("What the agent and the hook made of the XML (SMBIOS part: sent, then live)"):
            live = (await client.call("Host.dumpxmls", {"vmList": [self.vm.vm_id]}))[self.vm.vm_id]
            lines = list(difflib.unified_diff(_sysinfo(vm_xml.to_xml(self.vm)), _sysinfo(live), n=1, lineterm=""))[3:]
            if not any(line.startswith("+") and f"shelf {self.token}" in line for line in lines):
                raise HostFailed(f"the hook's change is not in the live XML:\n{live}")
            self.story.diff(lines)

    async def _statistics(self, client: Client) -> None:
        assert self.vm is not None
        with self.story.step("Statistics"):
            stats = (await client.call("VM.getStats", {"vmID": self.vm.vm_id}))[0]
            disk = stats.get("disks", {}).get("vda", {})
            self.story.call("VM.getStats", f"status {stats['status']}, {len(stats)} entries")
            self.story.say(f"CPU user {stats.get('cpuUser')} %, disk read {disk.get('readBytes')} bytes")
            host = await client.call("Host.getStats")
            domains = host.get("storageDomains", {})
            self.story.call("Host.getStats", f"{host.get('vmActive')} VM active, {host.get('memFree')} MiB free")
            for domain_id, domain in domains.items():
                self.story.say(f"domain {domain_id} valid: {domain['valid']}, read delay {domain['delay']} s")

    async def survive(self) -> None:
        """Kill the agent under the running VM and start it again."""
        assert self.vm is not None
        with self.story.step("Kill the agent with -9, start it again"):
            before, counter = self.seen.qemu_pid(), self.seen.counter()
            code = self.host.kill_agent()
            self.story.say(f"agent ended with {code}; QEMU {before} runs on: {os.path.exists(f'/proc/{before}')}")
            self.host.start_agent()
            async with self.host.client() as client:
                await engine.wait_vm(client, self.vm.vm_id, "Up", "Powering up", timeout_s=30)
                self.story.call("Host.getVMList", f"{self.vm.name} was recovered")
                await self._back_to_spm(client)
            if self.seen.qemu_pid() != before:
                raise HostFailed("the VM is another process now")
            await engine.until("the guest counts on", partial(self.seen.counts_beyond, counter), timeout_s=15)
            self.story.quote(f"guest: alive {self.seen.counter()}      (was {counter} before the kill)")

    async def _back_to_spm(self, client: Client) -> None:
        """What the engine does with a host that came back: connect the pool again, elect it again."""
        assert self.pool is not None
        await engine.connect_server(client, self.pool.domain_type, self.pool.connection)
        await engine.connect_pool(client, self.pool.pool_id, self.pool.domain_id)
        await engine.become_spm(client, self.pool.pool_id)
        self.story.call("StoragePool.spmStart", "SPM again")

    async def _shut_down(self, client: Client) -> None:
        assert self.vm is not None
        with self.story.step("Shut the VM down"):
            await client.call("VM.shutdown", {"vmID": self.vm.vm_id, "delay": "0", "message": "demo"})
            self.story.call("VM.shutdown", "ACPI power button")
            await engine.wait_vm(client, self.vm.vm_id, "Down", timeout_s=30)
            stats = (await client.call("VM.getStats", {"vmID": self.vm.vm_id}))[0]
            if not await self.seen.hears("guest: power button"):
                raise HostFailed("the guest went down without its power button")
            self.story.quote("guest: power button")
            self.story.call("VM.getStats", f"{stats['status']}: {stats.get('exitMessage')}")
            await client.call("VM.destroy", {"vmID": self.vm.vm_id})

    async def _remove(self, client: Client) -> None:
        assert self.volume is not None
        assert self.pool is not None
        with self.story.step("See what the guest wrote, then remove everything"):
            path = (await client.call("Image.prepare", self.volume.ids))["path"]
            argv = [
                "qemu-img",
                "dd",
                "-f",
                "qcow2",
                "-O",
                "raw",
                f"if={path}",
                "of=/tmp/reply.img",
                "bs=512",
                "count=2",
            ]
            self.host.run(argv, user="vdsm")
            reply = self.host.path("/tmp/reply.img").read_bytes()[512:].split(b"\0")[0].decode().strip()
            if reply != f"guest wrote {self.token}":
                raise HostFailed(f"the disk holds {reply!r}")
            self.story.quote(reply)
            await self._teardown(client, self.volume)
            await engine.delete_image(client, self.volume)
            self.story.call("Image.delete")
            await engine.remove_pool(client, self.pool)
            self.story.call("StoragePool.spmStop, disconnect, disconnectStorageServer")
            if self.networked:
                await cable.detach(client, self.story)
            self.host.path(f"{HOOKS}/before_vm_start/{HOOK}").unlink()


def _sysinfo(xml: str) -> list[str]:
    found = etree.fromstring(xml.encode()).find("sysinfo/system")
    assert found is not None
    lines = [f'<entry name="{entry.get("name")}">{entry.text}</entry>' for entry in found]
    return sorted(lines)

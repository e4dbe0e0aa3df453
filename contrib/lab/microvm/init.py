# SPDX-License-Identifier: GPL-2.0-or-later
"""A micro-VM's PID 1: builds the host around itself, then supervises it as the first process of a private host does.

Order: file systems, devices, accounts and folders, the persistent disk, network, daemons, the door. The door comes
last: who is answered through it finds the host finished. A failure is the last line of the console.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

from contrib.lab import furnish, groups, kernel_calls
from contrib.lab.microvm import spec as micro
from contrib.lab.spec import KVM_GID, LOCAL_FOLDER, POSIX_IMAGE, PREFIX, PYTHON, VDSM_UID, HostSpec
from contrib.lab.supervisor import Supervisor

SPEC = "/sys/firmware/qemu_fw_cfg/by_name/opt/lab/spec/raw"
# folders of the host that a power cut must not empty: {path: owner}
KEPT = {
    "/var/lib/vdsm": (VDSM_UID, KVM_GID),
    "/var/lib/vdsm-root": (0, 0),
    "/etc/vdsm": (0, 0),
    "/srv": (0, 0),
}
EXEC_SOCKET = micro.DOORS["exec.sock"]
# of an emulated machine, on a busy one; the whole boot has `host.BOOT_S`
STEP_S = 120
UDEVD = "/usr/lib/systemd/systemd-udevd"


def main() -> None:
    os.umask(0o022)
    os.environ.update({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"})
    host = micro.MicroSpec.from_json(Path(SPEC).read_text())
    spec = HostSpec(name=host.name, host_id=host.host_id, settings=host.settings, posix_image_bytes=4 << 30)
    supervisor = Supervisor()
    _file_systems()
    _devices(host)
    capabilities = furnish.read_tree(furnish.LIBVIRT_CACHE)
    furnish.furnish(spec, capabilities)
    _persistent_disk(spec)
    _network(host)
    if host.hypervisor:
        if host.apparmor:
            _confine()
        if host.watchdog:
            _watchdog(supervisor)
        furnish.start_daemons(spec, supervisor, watchdog=host.watchdog)
    _open_door(supervisor)
    supervisor.serve(lambda: print(f"host {host.name} is up", flush=True))


def _file_systems() -> None:
    for target, fstype, options in (
        ("/dev/shm", "tmpfs", "mode=1777"),
        ("/dev/pts", "devpts", "mode=620,gid=5,ptmxmode=666"),
        ("/dev/mqueue", "mqueue", ""),
        ("/dev/hugepages", "hugetlbfs", ""),
        ("/sys/kernel/config", "configfs", ""),
        ("/sys/kernel/security", "securityfs", ""),
    ):
        os.makedirs(target, exist_ok=True) if target.startswith("/dev") else None
        if fstype == "configfs":
            _run("modprobe", "configfs")
        if os.path.isdir(target):
            kernel_calls.mount(fstype, target, fstype, options=options)
    groups.mount_all([groups.Hierarchy("/sys/fs/cgroup", "cgroup2", "", "/")])


def _devices(host: micro.MicroSpec) -> None:
    os.makedirs("/run/udev", exist_ok=True)
    # the masked default is what renames eth0 to a name after its slot
    os.makedirs("/run/systemd/network", exist_ok=True)
    os.symlink("/dev/null", "/run/systemd/network/99-default.link")
    _run(UDEVD, "--daemon", "--resolve-names=early")
    modules = ["virtio_net", "virtio_scsi", "sd_mod", "loop", "bridge", "virtio_rng", *host.modules]
    modules += ["kvm_amd", "tun", "vhost_net"] if host.hypervisor else []
    modules += ["i6300esb"] if host.watchdog else []
    modules += ["vfio-pci", "e1000e"] if host.vfio else []
    _run("modprobe", "--all", *modules)
    # what was there before udevd: of all that only disks have links that anybody uses
    _run("udevadm", "trigger", "--action=add", "--subsystem-match=block")
    _run("udevadm", "settle", "--timeout=20")
    if os.path.exists("/dev/kvm"):
        os.chmod("/dev/kvm", 0o666)


def _persistent_disk(spec: HostSpec) -> None:
    os.makedirs(micro.PERSISTENT, exist_ok=True)
    kernel_calls.mount("/dev/vda", micro.PERSISTENT, "ext4")
    for folder, (user, group) in KEPT.items():
        kept = Path(micro.PERSISTENT, folder.lstrip("/").replace("/", "-"))
        if not kept.exists():
            unfinished = kept.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a boot that was cut
            subprocess.run(["cp", "-a", folder, unfinished], check=True)
            os.chown(unfinished, user, group)
            unfinished.rename(kept)
        kernel_calls.bind(str(kept), folder)
    os.makedirs(LOCAL_FOLDER, exist_ok=True)
    os.chown(LOCAL_FOLDER, VDSM_UID, KVM_GID)
    if not os.path.exists(POSIX_IMAGE):
        furnish.make_image(f"{POSIX_IMAGE}.new", spec.posix_image_bytes).wait()
        os.rename(f"{POSIX_IMAGE}.new", POSIX_IMAGE)
    os.sync()


def _network(host: micro.MicroSpec) -> None:
    commands = ["link set lo up"]
    for nic in host.nics:
        commands.append(f"link set {nic.name} up")
        if nic.address:
            commands.append(f"address add {nic.address} dev {nic.name}")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
    with open("/etc/hosts", "a") as hosts:
        hosts.write(host.hosts)


def _watchdog(supervisor: Supervisor) -> None:
    """wdmd pets the device for as long as sanlock's leases are renewed."""
    supervisor.start(["wdmd", "-D"], log="/var/log/wdmd.log")
    furnish.until("wdmd", lambda: os.path.exists("/run/wdmd/wdmd.sock"))


def _confine() -> None:
    """Load the distribution's profiles, enforcing, and let libvirt label its guests."""
    _run(
        "apparmor_parser",
        "-r",
        "-W",
        "/etc/apparmor.d/usr.sbin.libvirtd",
        "/etc/apparmor.d/usr.lib.libvirt.virt-aa-helper",
    )
    settings = Path("/etc/libvirt/qemu.conf")
    text = re.sub(r'security_driver = "none"', 'security_driver = "apparmor"', settings.read_text())
    settings.write_text(text + "security_require_confined = 1\n")


def _open_door(supervisor: Supervisor) -> None:
    environment = {"PYTHONPATH": PREFIX}
    supervisor.start(
        [PYTHON, "-m", "contrib.lab.microvm.executor", EXEC_SOCKET], env=environment, log="/var/log/lab-executor.log"
    )
    port = next(
        f"/dev/{entry.name}"
        for entry in Path("/sys/class/virtio-ports").iterdir()
        if (entry / "name").read_text().strip() == micro.PORT
    )
    furnish.until("the executor", lambda: os.path.exists(EXEC_SOCKET), STEP_S)
    supervisor.start([PYTHON, "-m", "contrib.lab.microvm.door", port], env=environment, log="/var/log/lab-door.log")


def _run(*argv: str) -> None:
    """A step whose failure shows where its result is missed: not every kernel has every module."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=STEP_S)
    if done.returncode != 0:
        print(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-300:]}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - PID 1 has nobody above it: the console is where the keeper looks
        traceback.print_exc()
        print("failed: the host's first process ended", flush=True)
        Path("/proc/sysrq-trigger").write_text("o")
        sys.stdin.read()

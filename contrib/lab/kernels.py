# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels for guests and for test machines: taken from the distribution's packages into the cache, never installed.

``guest`` is the smallest kernel that boots in a VM; ``lab`` has every module (LVM, iSCSI, NFS, bonding, ...).
A finished kernel folder is made under another name and renamed, so an interrupted download leaves none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contrib.lab.spec import CACHE, CHECKOUT

# in front of a command of apt: it waits until no other process holds apt's locks
APT = ("sh", str(CHECKOUT / "contrib/setup/apt.sh"))

# flavour -> names of meta packages, the first that the distribution knows is taken
DEBIAN = {
    "guest": ("linux-image-cloud-amd64", "linux-image-virtual"),
    "lab": ("linux-image-amd64", "linux-image-generic"),
}
FEDORA = {"guest": ("kernel-core",), "lab": ("kernel-core", "kernel-modules-core", "kernel-modules")}


class KernelMissing(Exception):
    """No such kernel in the cache, or the distribution offers none."""


@dataclass(frozen=True)
class Kernel:
    image: Path
    modules: Path
    release: str


def find(flavour: str) -> Kernel:
    """The cached kernel. Raises KernelMissing."""
    folder = CACHE / "kernels" / flavour
    images = sorted(folder.glob("boot/vmlinuz-*")) + sorted(folder.glob("lib/modules/*/vmlinuz"))
    images += sorted(folder.glob("usr/lib/modules/*/vmlinuz"))
    if not images:
        raise KernelMissing(f"no {flavour} kernel in {folder}: run `make setup`")
    modules = [path for top in ("lib", "usr/lib") for path in sorted((folder / top / "modules").glob("*"))]
    if not modules:
        raise KernelMissing(f"the {flavour} kernel in {folder} has no modules: remove the folder and run `make setup`")
    return Kernel(images[0], modules[0], modules[0].name)


def fetch(flavour: str) -> Kernel:
    """Download and unpack unless that was done before. Raises KernelMissing."""
    try:
        return find(flavour)
    except KernelMissing:
        pass  # that is what we are here for
    target = CACHE / "kernels" / flavour
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = Path(scratch, "root")
        unpacked.mkdir()
        if shutil.which("apt-get"):
            _fetch_debian(flavour, Path(scratch), unpacked)
        else:
            _fetch_fedora(flavour, Path(scratch), unpacked)
        shutil.rmtree(unpacked / "usr/share", ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)
    return find(flavour)


def _fetch_debian(flavour: str, scratch: Path, unpacked: Path) -> None:
    scratch.chmod(0o777)  # apt's download process runs as its own user
    for package in _debian_packages(DEBIAN[flavour]):
        _command(*APT, "apt-get", "download", "-q", package, cwd=scratch)
    for archive in scratch.glob("*.deb"):
        _command("dpkg", "-x", str(archive), str(unpacked), cwd=scratch)


def _debian_packages(metas: tuple[str, ...]) -> list[str]:
    """The versioned image package behind the first known meta package, and on Ubuntu its modules."""
    for meta in metas:
        depends = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True, check=False).stdout
        images = re.findall(r"Depends: (linux-image-(?:unsigned-)?\d\S+)", depends)
        if images:
            modules = [name for name in re.findall(r"Depends: (\S+)", _depends(images[0])) if "linux-modules-" in name]
            return [images[0], *modules]
    raise KernelMissing(f"apt knows none of {', '.join(metas)}; is its package list fresh (`apt-get update`)?")


def _depends(package: str) -> str:
    return subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=True).stdout


def _fetch_fedora(flavour: str, scratch: Path, unpacked: Path) -> None:
    _command("dnf", "download", "-q", *FEDORA[flavour], cwd=scratch)
    for archive in scratch.glob("*.rpm"):
        with subprocess.Popen(["rpm2cpio", str(archive)], stdout=subprocess.PIPE) as reader:
            subprocess.run(["cpio", "-idm", "--quiet"], stdin=reader.stdout, cwd=unpacked, check=True)


def _command(*argv: str, cwd: Path) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KernelMissing(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")


def main(argv: Sequence[str]) -> int:
    """``python -m contrib.lab.kernels guest|lab``: fetch into the cache."""
    for flavour in argv:
        print(fetch(flavour))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

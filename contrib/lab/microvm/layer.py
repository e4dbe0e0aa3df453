# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that only test hosts need: a layer of unpacked packages, never installed on this machine.

``python -m contrib.lab.microvm.layer`` downloads what the distribution offers and this machine lacks (3 to 20 s),
unpacks it to .cache/lab-root, and indexes the kernel's modules. Done before: it returns at once.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from contrib.lab import kernels
from contrib.lab.spec import CACHE

LAYER = CACHE / "lab-root"
DEBIAN = (
    "apparmor",
    "ethtool",
    "iputils-ping",
    "libvirt-daemon-system",
    "multipath-tools",
    "nfs-common",
    "nfs-kernel-server",
    "nftables",
    "nvme-cli",
    "open-iscsi",
    "udev",
)
FEDORA = ("ethtool", "iputils", "device-mapper-multipath", "nfs-utils", "nftables", "nvme-cli", "iscsi-initiator-utils")
MERGED = ("bin", "sbin", "lib", "lib64")


class LayerMissing(Exception):
    """The layer was not made, or a package could not be fetched."""


def find() -> Path:
    """The layer's folder. Raises LayerMissing."""
    if not (LAYER / ".packages").is_file():
        raise LayerMissing(f"no {LAYER}: run `make setup`")
    return LAYER


def fetch() -> Path:
    """Download and unpack unless that was done for these packages. Raises LayerMissing."""
    wanted = hashlib.sha256(" ".join(DEBIAN + FEDORA).encode()).hexdigest()
    stamp = LAYER / ".packages"
    if stamp.is_file() and stamp.read_text() == wanted:
        return LAYER
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        unpacked = Path(scratch, "root")
        unpacked.mkdir()
        if shutil.which("apt-get"):
            _fetch_debian(Path(scratch), unpacked)
        else:
            _fetch_fedora(Path(scratch), unpacked)
        _merge_usr(unpacked)
        (unpacked / ".packages").write_text(wanted)
        shutil.rmtree(LAYER, ignore_errors=True)
        unpacked.rename(LAYER)
    return LAYER


def index_modules() -> None:
    """modprobe inside needs the index that an installed kernel's package makes."""
    kernel = kernels.find("lab")
    if not (kernel.modules / "modules.dep").exists():
        top = kernel.modules.parents[2]
        _command("depmod", "-b", str(top), kernel.release, cwd=top)


def _fetch_debian(scratch: Path, unpacked: Path) -> None:
    scratch.chmod(0o755)
    archives = scratch / "archives"
    (archives / "partial").mkdir(parents=True)
    # with its dependencies, less what is installed
    _command(
        *(*kernels.APT, "apt-get", "install", "-y", "-q", "--download-only", "--no-install-recommends"),
        *("-o", f"Dir::Cache::archives={archives}", *DEBIAN),
        cwd=scratch,
    )
    for archive in archives.glob("*.deb"):
        _command("dpkg", "-x", str(archive), str(unpacked), cwd=scratch)


def _fetch_fedora(scratch: Path, unpacked: Path) -> None:
    _command("dnf", "download", "-q", "--resolve", *FEDORA, cwd=scratch)
    for archive in scratch.glob("*.rpm"):
        with subprocess.Popen(["rpm2cpio", str(archive)], stdout=subprocess.PIPE) as reader:
            subprocess.run(["cpio", "-idm", "--quiet"], stdin=reader.stdout, cwd=unpacked, check=True)


def _merge_usr(root: Path) -> None:
    """A folder /bin in an upper layer would hide the lower one's link to /usr/bin."""
    for name in MERGED:
        split = root / name
        if split.is_dir() and not split.is_symlink():
            shutil.copytree(split, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(split)


def _command(*argv: str, cwd: Path) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LayerMissing(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")


if __name__ == "__main__":
    print(fetch())
    index_modules()
    sys.exit(0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.checks.bare_root [COMMAND ...]``: does set-up know everything that demo and tests need?

Makes a minimal Debian (debootstrap's minbase, git and certificates, nothing else), clones the last commit into it and
runs the commands there one after the other, by default ``./run test`` twice. All of it happens in mount, process, IPC
and host name namespaces whose root is that system: no program of this machine can be found, and nothing stays.

``--beside-apt`` lets another process upgrade that system all the time, as unattended-upgrades does.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
ARCHIVE = TOP / ".cache" / "bare-root.tar"
MIRROR = "http://deb.debian.org/debian"
INSIDE = "/srv/checkout"
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
# how this machine reaches package servers; all else of its environment stays outside
NETWORK = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("PIP_INDEX_URL", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE"),
)
# becomes the root of its own mount namespace; machine's devices and control groups are the machine's
ENTER = """
set -e
mount --bind "$1" "$1"
cd "$1"
mount --rbind /dev dev
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
hostname bare
pivot_root . mnt
umount -l /mnt
shift
cd "$1"
shift
exec "$@"
"""
UPGRADING = """
while :; do
    apt-get -q update
    apt-get -q -y install --reinstall --no-install-recommends hostname
    dpkg --configure -a
done >/var/log/upgrading.log 2>&1
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m contrib.checks.bare_root", description=__doc__)
    parser.add_argument("commands", nargs="*", default=["./run test", "./run test"], metavar="COMMAND")
    parser.add_argument("--beside-apt", action="store_true", help="another process holds apt's locks by turns")
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--keep", metavar="FOLDER", help="use this folder, and leave it for another go")
    chosen = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        sys.exit("needs root and debootstrap (Debian's package of that name)")
    folder = Path(chosen.keep or tempfile.mkdtemp(prefix="bare-root-", dir="/var/tmp"))
    try:
        make(folder, chosen.suite)
        return run(folder, chosen.commands, beside_apt=chosen.beside_apt)
    finally:
        if not chosen.keep:
            shutil.rmtree(folder)


def make(folder: Path, suite: str) -> None:
    """The minimal system (made once, then unpacked) and a clone of what is committed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "usr").exists():
        if not ARCHIVE.exists():
            scratch = ARCHIVE.with_suffix(f".{os.getpid()}")
            ARCHIVE.parent.mkdir(exist_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)
            _do("debootstrap", "--variant=minbase", "--include=git,ca-certificates", suite, str(scratch), MIRROR)
            _do("tar", "-C", str(scratch), "-cf", f"{scratch}.tar", ".")
            shutil.rmtree(scratch)
            Path(f"{scratch}.tar").rename(ARCHIVE)
        _do("tar", "-C", str(folder), "-xpf", str(ARCHIVE))
    folder.chmod(0o755)
    shutil.copy("/etc/resolv.conf", folder / "etc/resolv.conf")
    # a network with an authority of its own
    shutil.copy(f"/{AUTHORITIES}", folder / AUTHORITIES)
    checkout = folder / INSIDE.lstrip("/")
    if not checkout.exists():
        _do("git", "clone", "-q", "--no-hardlinks", str(TOP), str(checkout))


def run(folder: Path, commands: list[str], *, beside_apt: bool) -> int:
    """The first exit code that is not 0, and each command's time."""
    upgrader = _inside(folder, "/", "sh", "-c", UPGRADING)
    upgrading = subprocess.Popen(upgrader, env=_environment()) if beside_apt else None
    codes = []
    try:
        for command in commands:
            began = time.monotonic()
            argv = _inside(folder, INSIDE, *shlex.split(command))
            codes.append(subprocess.run(argv, check=False, env=_environment()).returncode)
            print(f"== bare root: {command}: exit code {codes[-1]} after {time.monotonic() - began:.0f} s", flush=True)
    finally:
        if upgrading is not None:
            upgrading.kill()
            upgrading.wait()
    return next((code for code in codes if code), 0)


def _inside(folder: Path, where: str, *argv: str) -> list[str]:
    namespaces = ("--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL")
    return ["unshare", *namespaces, "--", "sh", "-c", ENTER, "enter", str(folder), where, *argv]


def _environment() -> dict[str, str]:
    own = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    return own | {name: os.environ[name] for name in NETWORK if name in os.environ}


def _do(*argv: str) -> None:
    print(f"== bare root: {shlex.join(argv)}", flush=True)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())

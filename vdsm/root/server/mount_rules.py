# SPDX-License-Identifier: GPL-2.0-or-later
"""Which mounts the root helper makes at all: pure checks of a specification.

The agent's user may ask for any storage an administrator can name, but must not gain root by it:
no kernel interfaces as file systems, no file systems that run a program of the caller's choice,
no set-user-id files or devices on what is mounted, no bind or remount of what exists, no option that names another
file or device for root to open (`mount_secrets` has the exceptions).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from storage.ondisk.remote_path import mount_name, normalise
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import shown

BLOCK_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "gfs2", "ocfs2"})
NETWORK_TYPES = frozenset({"nfs", "nfs4", "ceph", "cifs", "smb3", "lustre", "gpfs", "beegfs"})
# a glusterfs client loads the program that its server names, as root, and the caller chooses the server
REFUSED_TYPES = frozenset({"fuse", "fuseblk", "fusectl", "glusterfs"})

REFUSED_OPTIONS = frozenset(
    {
        *("suid", "dev", "user", "users", "owner", "group", "auto", "remount"),
        *("bind", "rbind", "move", "shared", "slave", "private", "unbindable"),
        *("rshared", "rslave", "rprivate", "runbindable"),
    }
)
REFUSED_OPTION_NAMES = frozenset({"loop", "helper", "uhelper", "lowerdir", "upperdir", "workdir", "source", "subtype"})
# a journal elsewhere is written by the kernel; an image of the caller's could name any disk of the host
REFUSED_OPTION_NAMES |= {"journal_dev", "journal_path", "logdev", "rtdev", "device"}
# mount's programs know some options by their beginning, and read or write the file that they name as root
REFUSED_BEGINNINGS = ("conf", "cred", "secret", "remount", "log-", "log_")
ALWAYS = ("nosuid", "nodev")
# it stands for what a mount has anyway, suid and dev among it: taken from engines, not passed on
IGNORED = "defaults"

MAX_SPEC = 512
MAX_NAME = 240
MAX_OPTIONS = 1024

# servers and devices have plain names; a path behind them may hold letters of any language
_SPEC = re.compile(r"[A-Za-z0-9_.:@%+=~\[\],-]*(?:/[\w./:@%+=~\[\],-]*)?\Z")
_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_ID = re.compile(r"[\w.:@%+=~\[\],-]+\Z")
_OPTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@%+=\[\]-]*\Z")


def check_spec(spec: str) -> str:
    """The normalised specification. Raises `InvalidParameter`."""
    if not spec or len(spec) > MAX_SPEC or not _SPEC.match(spec) or spec.startswith("-"):
        raise InvalidParameter("spec", shown(spec), f"expected a device, a file or server:/path of up to {MAX_SPEC}")
    if "/" not in spec and ":" not in spec:
        raise InvalidParameter("spec", shown(spec), "expected an absolute path or server:/path")
    if ".." in spec.split("/") or "." in spec.split("/"):
        raise InvalidParameter("spec", shown(spec), "a path must not hold '.' or '..'")
    spec = normalise(spec)
    name = mount_name(spec)
    if not _fits(name) or name in ("", "_", ".", ".."):
        raise InvalidParameter("spec", shown(spec), f"its folder's name must have 2 to {MAX_NAME} bytes")
    return spec


def is_mount_id(name: str) -> bool:
    return _fits(name) and _ID.match(name) is not None and name not in (".", "..")


def _fits(name: str) -> bool:
    return len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME


def check_type(vfs_type: str, kernel_types: Iterable[str]) -> str:
    """``kernel_types``: file systems on block devices that this kernel has. Raises `InvalidParameter`."""
    allowed = (BLOCK_TYPES | NETWORK_TYPES | set(kernel_types)) - REFUSED_TYPES
    if not _TYPE.match(vfs_type) or vfs_type not in allowed:
        raise InvalidParameter("vfs_type", shown(vfs_type), "no file system of that type may be mounted")
    return vfs_type


def check_options(options: str, *, files: Collection[str] = ()) -> list[str]:
    """The options as a list, ``nosuid`` and ``nodev`` last. ``files``: names whose value may be a file's path.

    Raises `InvalidParameter`, which tells an option's name, never its value.
    """
    if len(options) > MAX_OPTIONS:
        raise InvalidParameter("options", f"{len(options)} characters", f"longer than {MAX_OPTIONS} characters")
    wanted = [o for o in options.split(",") if o]
    for option in wanted:
        name, equals, value = option.partition("=")
        refused = (
            not _OPTION.match(option)
            or name in REFUSED_OPTIONS
            or (equals and name in REFUSED_OPTION_NAMES)
            or (name in REFUSED_OPTION_NAMES and name != "loop")
            or name.lower().startswith("x-")
            or (name not in files and (name.lower().startswith(REFUSED_BEGINNINGS) or "/" in value))
            or option == "errors=panic"  # a damaged image would end the host
        )
        if refused:
            raise InvalidParameter("options", shown(name), "this mount option is not allowed")
    return [*(o for o in wanted if o not in (*ALWAYS, IGNORED)), *ALWAYS]


def block_types(proc_filesystems: str) -> set[str]:
    """Types in the text of /proc/filesystems that need a device."""
    lines = (line.split("\t") for line in proc_filesystems.splitlines())
    return {parts[1] for parts in lines if len(parts) == 2 and parts[0] == ""}

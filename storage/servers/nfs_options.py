# SPDX-License-Identifier: GPL-2.0-or-later
"""With which options an export is mounted (storage.md 3.4), and which of the user's are taken.

The field's options come first, the user's after them: mount(8) takes the last. What would make the mount unsafe is
refused by its name; docs/storage.md has the reason of each. Safe means:

- I/O on a server that is gone ends with an error, in a time that lies between the lock daemon's I/O timeout and
  `LONGEST_S`: VMs are paused then, the mount can be left;
- what another host wrote is seen: metadata is read by several hosts;
- one export's options and end are its own.

Pure: whoever mounts an NFS export, as kind NFS or as POSIXFS, has its options from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from storage.servers.errors import OptionRefused
from storage.servers.kinds import NfsExport, NfsVersion, PosixMount

TIMEO_DS = 100
RETRANS = 3
MOST_RETRANS = 30
LONGEST_S = 600
LONGEST_CACHE_S = 60
NFS_PORT, RPCBIND_PORT = 2049, 111

_STALE = "hosts would not see what others wrote"
_BY_VERSION = "the version is a parameter of its own: protocol_version"

REFUSED = {
    "hard": "I/O on a server that is gone would never end",
    "softerr": "VMs would be stopped by an error that is not told as trouble of storage",
    "sharecache": "exports of one server would share the options of the first, and its end",
    "nocto": _STALE,
    "fsc": _STALE,
    "softreval": _STALE,
    "bg": "the mount would be told as made before it is",
    "udp": "data that is cut into datagrams can be put together wrongly without a sign",
    "ro": "a domain is written",
    "sloppy": "a mistake in another option would not be told",
    "addr": "the server is named by the connection",
}
_FLAGS = frozenset(
    {
        *("soft", "nosharecache", "cto", "noac", "ac", "sync", "async", "rw", "fg", "tcp", "tcp6", "rdma"),
        *("lock", "nolock", "intr", "nointr", "acl", "noacl", "rdirplus", "nordirplus", "resvport", "noresvport"),
        *("migration", "nomigration", "nosoftreval", "nofsc", "trunkdiscovery", "notrunkdiscovery"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "lazytime"),
        *("exec", "noexec", "nosuid", "nodev", "_netdev", "nofail", "defaults"),
    }
)
_NUMBERS = {
    "timeo": (1, 10 * LONGEST_S),
    "retrans": (1, MOST_RETRANS),
    "rsize": (4096, 1 << 20),
    "wsize": (4096, 1 << 20),
    "retry": (0, 10_000),
    "nconnect": (1, 16),
    "max_connect": (1, 16),
    "port": (0, 65535),
    "mountport": (0, 65535),
    "mountvers": (1, 3),
    "namlen": (1, 255),
    **dict.fromkeys(("actimeo", "acregmin", "acregmax", "acdirmin", "acdirmax"), (0, LONGEST_CACHE_S)),
}
_WORDS = {
    "sec": frozenset({"sys", "krb5", "krb5i", "krb5p", "none"}),
    "proto": frozenset({"tcp", "tcp6", "rdma", "rdma6"}),
    "mountproto": frozenset({"tcp", "tcp6", "udp", "udp6"}),
    "lookupcache": frozenset({"all", "none", "pos", "positive"}),
    "local_lock": frozenset({"none", "all", "flock", "posix"}),
    "xprtsec": frozenset({"none", "tls", "mtls"}),
}
_TEXTS = frozenset({"context", "fscontext", "defcontext", "rootcontext", "clientaddr", "mounthost"})
_VERSION_NAMES = frozenset({"vers", "nfsvers", "minorversion"})
_VERSION = re.compile(r"v?([34])(?:\.([0-2]))?\Z")


def of_export(export: NfsExport, io_timeout_s: int) -> str:
    """Raises `OptionRefused`."""
    given = _split(export.options)
    for option in given:
        name = option.partition("=")[0]
        if name in _VERSION_NAMES or _VERSION.match(name):
            raise OptionRefused(name, _BY_VERSION)
    timeo, retrans = export.timeo_ds or TIMEO_DS, export.retrans or RETRANS
    is_v3 = export.version in (NfsVersion.V3, NfsVersion.AUTO)
    return _planned([*_first(timeo, retrans), *_version_options(export.version)], given, is_v3, io_timeout_s)


def of_posix_mount(mount: PosixMount, io_timeout_s: int) -> str:
    """For ``vfs_type`` nfs or nfs4; the version stands among the options. Raises `OptionRefused`."""
    given = _split(mount.options)
    return _planned(_first(TIMEO_DS, RETRANS), given, _may_be_v3(mount.vfs_type, given), io_timeout_s)


def _first(timeo: int, retrans: int) -> list[str]:
    return ["soft", "nosharecache", f"timeo={timeo}", f"retrans={retrans}"]


def _version_options(version: NfsVersion) -> list[str]:
    if version is NfsVersion.AUTO:
        return []
    major, dot, minor = version.value.partition(".")
    return [f"nfsvers={major}", *([f"minorversion={minor}"] if dot else [])]


def _planned(first: list[str], given: list[str], may_be_v3: bool, io_timeout_s: int) -> str:
    for option in given:
        _check(option)
    options = [*first, *given]
    _check_times(options, io_timeout_s)
    names = {option.partition("=")[0] for option in given}
    if may_be_v3 and not names & {"lock", "nolock"}:
        # locks of v3 stay on the server when their host dies: a VM could not start elsewhere
        options.append("nolock")
    return ",".join(options)


def _check(option: str) -> None:
    name, equals, value = option.partition("=")
    if name in REFUSED:
        raise OptionRefused(name, REFUSED[name])
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        _require(name, value.isascii() and value.isdigit() and low <= int(value) <= high, f"expected {low} to {high}")
    elif name in _WORDS:
        reason = REFUSED["udp"] if name == "proto" and value.startswith("udp") else _one_of(_WORDS[name])
        _require(name, value in _WORDS[name], reason)
    elif name in _VERSION_NAMES or _VERSION.match(name):
        _require(name, _says_version(name, value), "expected a version of NFS that there is: 3, 4, 4.0, 4.1 or 4.2")
    elif name in _TEXTS:
        _require(name, bool(value), "expected a value")
    else:
        _require(name, name in _FLAGS, "it is not known here for NFS")
        _require(name, not equals, "it takes no value")


def _require(name: str, is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise OptionRefused(name, otherwise)


def _one_of(words: Iterable[str]) -> str:
    return f"expected one of {', '.join(sorted(words))}"


def _says_version(name: str, value: str) -> bool:
    if name == "minorversion":
        return value in ("0", "1", "2")
    return _VERSION.match(value if name in _VERSION_NAMES else name) is not None


def _check_times(options: list[str], io_timeout_s: int) -> None:
    timeo, retrans = (int(_last(options, name)) for name in ("timeo", "retrans"))
    least = 10 * io_timeout_s
    _require("timeo", timeo >= least, f"{timeo} is less than the lock daemon's I/O timeout: at least {least}")
    until_error_s = timeo * retrans * (retrans + 1) / 20  # each retry waits one timeo longer
    _require(
        "retrans",
        until_error_s <= LONGEST_S,
        f"with timeo={timeo} a dead server is told after {until_error_s:g} s, at most {LONGEST_S} are taken",
    )


def _last(options: list[str], name: str) -> str:
    return [option.partition("=")[2] for option in options if option.startswith(f"{name}=")][-1]


def _may_be_v3(vfs_type: str, given: list[str]) -> bool:
    said = [_major(option) for option in given]
    return vfs_type != "nfs4" and "4" not in said


def _major(option: str) -> str:
    name, _, value = option.partition("=")
    if name == "minorversion":
        return "4"
    found = _VERSION.match(value if name in _VERSION_NAMES else name)
    return found[1] if found else ""


def _split(options: str) -> list[str]:
    return [option for option in options.split(",") if option]


def ports(options: str) -> tuple[int, ...]:
    """TCP ports of which one answers when the server does; none where that says nothing (RDMA)."""
    given = _split(options)
    said = dict(option.partition("=")[::2] for option in given)
    if "rdma" in said or said.get("proto", "").startswith("rdma"):
        return ()
    if said.get("port", "0") != "0":
        return (int(said["port"]),)
    return (NFS_PORT,) if any(_major(option) == "4" for option in given) else (NFS_PORT, RPCBIND_PORT)

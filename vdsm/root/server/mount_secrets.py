# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets of mount options, and the files in which administrators keep them.

What is given as an option (``password=`` of cifs, ``secret=`` of ceph) goes to the mount's program in a file that only
root reads, never on a command line, which every user of the host can see. A file that the caller names is read by
root, so it is taken only when it lies below /etc, is root's on the whole way, and has the form of what it is said to
be: otherwise naming ``/etc/shadow`` would have the program tell of it. The program gets a copy.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence

from vdsm.common import masking
from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.root.server import walk
from vdsm.root.server.mount_points import Slot

_CIFS = frozenset({"cifs", "smb3"})
_PASSWORDS = {"pass": "password", "password": "password", "passwd": "password", "pass2": "password2"}
_PASSWORDS["password2"] = "password2"
_SECRET_NAMES = {"cifs": _PASSWORDS, "smb3": _PASSWORDS, "ceph": {"secret": "secret"}}
# options whose value is a file that root reads: by type, with the option's usual name
_FILES = {
    "cifs": {"credentials": "credentials", "cred": "credentials"},
    "smb3": {"credentials": "credentials", "cred": "credentials"},
    "ceph": {"secretfile": "secretfile"},
}
_CREDENTIAL = re.compile(r"\s*(?:#.*|(?:username|user|password|pass|password2|domain|dom)=.*)?\Z")
_KEY = re.compile(r"\s*[A-Za-z0-9+/]{8,256}={0,2}\s*\Z")
ALLOWED = "/etc/"
MAX_BYTES = 4096
MAX_SECRET = 1024


class SecretNotKept(AgentError):
    mount_id: str
    msg = "The password or key of mount {self.mount_id!r} is not kept by this host"
    remedy = "Connect the storage server again"


class NoSecretFile(AgentError):
    file: str
    reason: str
    msg = "{self.file} is not used for a mount: {self.reason}"
    remedy = "Keep passwords and keys of mounts in files of root's below /etc that nobody else may write"


def split(vfs_type: str, options: str) -> tuple[str, dict[str, str]]:
    """The options without secrets, and these by name. Raises `InvalidParameter`, which never tells a value."""
    plain, secrets = [], {}
    names = _SECRET_NAMES.get(vfs_type, {})
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name in names:
            if not value.isprintable() or len(value) > MAX_SECRET:
                raise InvalidParameter("options", f"{name}=...", "a secret is one line of printable characters")
            secrets[names[name]] = value
        elif is_file(vfs_type, name):
            plain.append(option)
        elif value and masking.is_secret(name):
            raise InvalidParameter("options", f"{name}=...", f"{vfs_type} has no way to get this secret unseen")
        elif vfs_type in _CIFS and name == "username" and "%" in value:
            raise InvalidParameter("options", f"{name}=...", "give the password by password=")
        else:
            plain.append(option)
    return ",".join(plain), secrets


def file_options(vfs_type: str) -> Collection[str]:
    """Options whose value is a file that an administrator keeps."""
    return _FILES.get(vfs_type, {})


def is_file(vfs_type: str, name: str) -> bool:
    return name in file_options(vfs_type)


def for_program(vfs_type: str, options: Sequence[str], secrets: Mapping[str, str], slot: Slot) -> list[str]:
    """The options for mount(8): secrets in a file of the slot, named files as copies there. Raises `NoSecretFile`."""
    given, text = [], ""
    usual = ""
    for option in options:
        name, _, value = option.partition("=")
        if is_file(vfs_type, name):
            usual, text = _FILES[vfs_type][name], text + _read(value, vfs_type)
        else:
            given.append(option)
    if secrets:
        usual = "credentials" if vfs_type in _CIFS else "secretfile"
        lines = (f"{name}={value}\n" for name, value in secrets.items())
        text = text + "".join(lines) if vfs_type in _CIFS else secrets["secret"]
    if usual:
        given.append(f"{usual}={slot.write(usual, text)}")
    return given


def _read(file: str, vfs_type: str) -> str:
    if not file.startswith(ALLOWED) or ".." in file.split("/"):
        raise NoSecretFile(file, f"it is not below {ALLOWED}")
    try:
        with walk.trusted(os.path.dirname(file)) as folder:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(os.path.basename(file), flags, dir_fd=folder)
    except OSError as e:
        raise NoSecretFile(file, e.strerror or str(e)) from None
    with open(fd, encoding="utf-8", errors="replace") as f:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
            raise NoSecretFile(file, "it is no regular file of root's that nobody else may write")
        text = f.read(MAX_BYTES)
    is_good = all(map(_CREDENTIAL.match, text.split("\n"))) if vfs_type in _CIFS else _KEY.match(text)
    if not is_good:
        raise NoSecretFile(file, f"its content is not what {vfs_type} expects")
    return text if text.endswith("\n") or vfs_type not in _CIFS else text + "\n"

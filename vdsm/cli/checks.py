# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor's single checks: each looks at one thing that the agent needs and that an installation can lack."""

from __future__ import annotations

import ctypes
import grp
import importlib.util
import os
import pwd
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from vdsm.cli import libvirt_asked
from vdsm.common.paths import Paths
from vdsm.host.cpu import VIRTUALISATION, parse_cpuinfo
from vdsm.host.tree import Tree

AGENT_ID = 36
LEAST_FREE_MIB = 500
_ANSWER_S = 2.0
_LIBVIRT = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
_SANLOCK = "/run/sanlock/sanlock.sock"
_TIME_ERROR = 5  # adjtimex: the clock is not synchronised
_TIMEX_BYTES = 512


class Level(StrEnum):
    GOOD = "good"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Result:
    what: str
    level: Level
    found: str
    remedy: str


def _result(what: str, good: bool, found: str, remedy: str, otherwise: Level = Level.FAULT) -> Result:
    return Result(what, Level.GOOD, found, "") if good else Result(what, otherwise, found, remedy)


def accounts() -> Iterator[Result]:
    user, group = _name_of_user(AGENT_ID), _name_of_group(AGENT_ID)
    try:
        own = pwd.getpwnam("vdsm")
    except KeyError:
        taken = f"; id {AGENT_ID} belongs to {user}" if user else ""
        steps = [f"give {user} another id (usermod -u)"] if user else []
        steps += [f"groupadd --system --gid {AGENT_ID} vdsm"] if not group else []
        add = f"useradd --system --uid {AGENT_ID} --gid {AGENT_ID} --no-create-home --shell /usr/sbin/nologin vdsm"
        remedy = "; ".join([*steps, add])
        yield Result("user", Level.FAULT, f"there is no user vdsm{taken}", remedy)
        return
    right = (own.pw_uid, own.pw_gid) == (AGENT_ID, AGENT_ID)
    found = f"vdsm is {own.pw_uid}:{own.pw_gid}, group {AGENT_ID} is {group or 'missing'}"
    yield _result("user", right, found, "storage is shared by number: make it 36:36 (usermod, groupmod)")
    member = set(os.getgrouplist("vdsm", own.pw_gid))
    for name in ("kvm", "sanlock", "libvirt"):
        try:
            there = grp.getgrnam(name).gr_gid in member
        except KeyError:
            yield Result(
                "groups", Level.WARNING, f"there is no group {name}", f"install the package that brings {name}"
            )
            continue
        state = "is in" if there else "is not in"
        remedy = f"usermod -aG {name} vdsm; systemctl restart vdsm"
        yield _result("groups", there, f"vdsm {state} group {name}", remedy)


def host(tree: Tree) -> Iterator[Result]:
    flags = parse_cpuinfo(tree.text("/proc/cpuinfo")).flags
    device = tree.exists("/dev/kvm")
    if VIRTUALISATION.isdisjoint(flags):
        found = "the processor shows neither vmx nor svm: VMs are emulated, slowly"
        is_vm = "hypervisor" in flags
        remedy = "this host is a VM: allow nesting on its hypervisor" if is_vm else "enable it in the firmware"
    else:
        found = "/dev/kvm is there" if device else "there is no /dev/kvm"
        remedy = "modprobe kvm_intel" if "vmx" in flags else "modprobe kvm_amd"
    can = device and not VIRTUALISATION.isdisjoint(flags)
    yield _result("kvm", can, found, remedy, Level.WARNING)
    yield libvirt([tree.path(name) for name in _LIBVIRT])
    yield _socket("sanlock", [tree.path(_SANLOCK)], "systemctl start sanlock", "takes connections")
    binding = importlib.util.find_spec("sanlock") is not None
    word = "can be loaded" if binding else "can't be loaded"
    remedy = "install python3-sanlock (docs/install.md)"
    yield _result("sanlock binding", binding, f"Python's sanlock module {word}", remedy)
    program = shutil.which("qemu-img")
    yield _result("qemu-img", bool(program), program or "not found", "install qemu-utils (qemu-img on Fedora and EL)")
    yield _clock()


def places(paths: Paths) -> Iterator[Result]:
    for folder in (paths.run, *paths.state_folders):
        yield _folder(folder, AGENT_ID)
    for folder in (paths.etc, paths.state, paths.repository, paths.mounts, paths.root_state):
        yield _folder(folder, 0)
    for folder in (paths.log, paths.state, paths.run):
        try:
            state = os.statvfs(folder)
        except OSError:
            continue
        mib = state.f_bavail * state.f_frsize >> 20
        short = Level.WARNING if mib else Level.FAULT
        yield _result("disk space", mib >= LEAST_FREE_MIB, f"{folder}: {mib} MiB free", "make room", short)


def _folder(folder: str, owner: int) -> Result:
    name = "root" if owner == 0 else "vdsm"
    make = f"install -d -m 0755 -o {owner} -g {owner} {folder}"
    try:
        info = os.stat(folder)
    except FileNotFoundError:
        return Result("directory", Level.FAULT, f"{folder} is missing", make)
    except OSError as e:
        return Result("directory", Level.WARNING, f"{folder}: {e.strerror}", "look again as root")
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISDIR(info.st_mode):
        return Result("directory", Level.FAULT, f"{folder} is no directory", f"remove it; {make}")
    if info.st_uid != owner:
        found = f"{folder} belongs to user {info.st_uid}, expected {name}"
        return Result("directory", Level.FAULT, found, f"chown {owner}:{owner} {folder}")
    if mode & stat.S_IWOTH:
        return Result("directory", Level.FAULT, f"{folder} is writable by every user", f"chmod o-w {folder}")
    return Result("directory", Level.GOOD, f"{folder} ({name}, {mode:04o})", "")


def libvirt(candidates: list[str]) -> Result:
    """It is asked something: one that is stopped takes connections, too."""
    return _socket("libvirt", candidates, "systemctl start libvirtd", "answers", libvirt_asked.ask)


def _connect(path: str, timeout_s: float) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout_s)
        probe.connect(path)


def _socket(
    what: str, candidates: list[str], remedy: str, well: str, ask: Callable[[str, float], None] = _connect
) -> Result:
    """``well``: what it does when ``ask`` raises nothing."""
    found = "there is no socket " + " or ".join(candidates)
    for path in candidates:
        try:
            ask(path, _ANSWER_S)
            return Result(what, Level.GOOD, f"{well} at {path}", "")
        except FileNotFoundError:
            continue
        except PermissionError:
            return forbidden(what, path)
        except libvirt_asked.NoLibvirt:
            found = f"{path}: what answers there is no libvirt"
        except TimeoutError:
            hangs = remedy.replace("start", "restart")
            return Result(what, Level.FAULT, f"{path} takes connections and does not answer", hangs)
        except OSError as e:
            found = f"{path}: {e.strerror or e}"
    return Result(what, Level.FAULT, found, remedy)


def closed_to_agent(file: str) -> Result | None:
    """Root reads every file, the agent does not: by its owner, group and mode alone."""
    info = os.stat(file)
    bit = stat.S_IRUSR if info.st_uid == AGENT_ID else stat.S_IRGRP if info.st_gid == AGENT_ID else stat.S_IROTH
    if info.st_mode & bit:
        return None
    found = f"{file}: user vdsm may not read it (mode {stat.S_IMODE(info.st_mode):04o}), so the agent does not start"
    return Result("configuration", Level.FAULT, found, f"chmod 0644 {file}")


def forbidden(what: str, path: str) -> Result:
    """It may be well: this user can't tell."""
    found = f"{path}: user {os.geteuid()} may not ask there"
    return Result(what, Level.WARNING, found, "look again as root or vdsm")


def _clock() -> Result:
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # all zero: only asks
    if state < 0:
        return Result("clock", Level.WARNING, "the kernel does not tell whether it is synchronised", "")
    found = "synchronised" if state != _TIME_ERROR else "not synchronised"
    remedy = "systemctl enable --now chronyd (or systemd-timesyncd): leases and certificates need the time"
    return _result("clock", state != _TIME_ERROR, found, remedy, Level.WARNING)


def _name_of_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _name_of_group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Typed settings, read once at start.

Files, later ones win: ``/etc/vdsm/vdsm.conf``, then drop-ins ``*.conf`` of ``vdsm.conf.d`` in
``/usr/lib/vdsm``, ``/run/vdsm`` and ``/etc/vdsm``.

Two kinds of sections:

- VDSM's own (an engine writes ``[vars]`` and ``[addresses]``; admins carry files over): a key that
  means something here is honoured, any other is warned about with file and line, never fatal.
- ours (``[agent]``, ``[access]``, ``[hooks]``, ``[hook_timeouts]``, ``[virt]``): strict. An unknown key or a bad value
  stops the agent with file, line and what was expected.
"""

from __future__ import annotations

import configparser
import glob
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths


class BadConfiguration(AgentError):
    place: str
    reason: str
    msg = "{self.place}: {self.reason}"
    remedy = "Mend the file and start the agent again; 'vdsm doctor' shows what was read"


@dataclass(frozen=True)
class Settings:
    """Every setting with its default. Units are in the names."""

    sanlock_io_timeout_s: int = 10
    health_check_delay_s: float = 10.0
    log_level: str = "INFO"
    # plain HTTP on a TCP address, never above role reader; empty: none
    plain_http_address: str = ""
    plain_http_port: int = 0
    # the engine's port: TLS with client certificates, or plain and for reading only
    ssl: bool = True
    ssl_ciphers: str = ""
    match_client_names: bool = False
    management_address: str = "::"
    management_port: int = 54321
    hook_timeout_s: float = 120.0
    hook_timeouts_s: Mapping[str, float] = field(default_factory=dict)  # by hook point
    # custom properties of VMs that an operator may set: each can start hook scripts
    operator_custom_properties: frozenset[str] = frozenset()
    libvirt_uri: str = "qemu:///system"
    vm_start_slots: int = 4
    stats_interval_s: float = 15.0
    warnings: tuple[str, ...] = ()


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 86400:
        raise ValueError("expected seconds, more than 0 and less than a day")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65536:
        raise ValueError("expected a port number")
    return value


def _between(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return read


def _yes(text: str) -> bool:
    value = configparser.ConfigParser.BOOLEAN_STATES.get(text.strip().lower())
    if value is None:
        raise ValueError("expected true or false")
    return value


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text.strip()))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.replace(",", " ").split())


def _level(text: str) -> str:
    word = text.strip().upper()
    if word not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("expected DEBUG, INFO, WARNING or ERROR")
    return word


# section -> key -> (setting, reader)
_FOREIGN: dict[str, dict[str, tuple[str, Callable[[str], Any]]]] = {
    "vars": {
        "ssl": ("ssl", _yes),
        "ssl_ciphers": ("ssl_ciphers", str.strip),
        "verify_client_cert": ("match_client_names", _yes),
    },
    "addresses": {
        "management_port": ("management_port", _port),
        "management_ip": ("management_address", _address),
    },
    "sanlock": {"io_timeout": ("sanlock_io_timeout_s", _between(1, 60))},
    "irs": {
        "sd_health_check_delay": ("health_check_delay_s", _seconds),
    },
}
_OURS: dict[str, dict[str, tuple[str, Callable[[str], Any]]]] = {
    "agent": {
        "log_level": ("log_level", _level),
        "plain_http_address": ("plain_http_address", str.strip),
        "plain_http_port": ("plain_http_port", _port),
        "stats_interval_s": ("stats_interval_s", _seconds),
    },
    "access": {"operator_custom_properties": ("operator_custom_properties", _words)},
    "hooks": {"timeout_s": ("hook_timeout_s", _seconds)},
    "virt": {
        "libvirt_uri": ("libvirt_uri", str.strip),
        "start_slots": ("vm_start_slots", _between(1, 64)),
    },
}
_HOOK_TIMEOUTS = "hook_timeouts"  # section of ours: hook point = seconds


def load(paths: Paths) -> Settings:
    """The settings of this host. Raises `BadConfiguration` for our own sections only."""
    values: dict[str, Any] = {}
    timeouts: dict[str, float] = {}
    warnings: list[str] = []
    for path in files(paths):
        _read(path, values, timeouts, warnings)
    return Settings(**values, hook_timeouts_s=timeouts, warnings=tuple(warnings))


def files(paths: Paths) -> list[str]:
    """The files that exist, in the order in which they are read."""
    found = [os.path.join(paths.etc, "vdsm.conf")]
    for folder in (paths.usr_lib, paths.run, paths.etc):
        found += sorted(glob.glob(os.path.join(folder, "vdsm.conf.d", "*.conf")))
    return [path for path in found if os.path.isfile(path)]


def _read(path: str, values: dict[str, Any], timeouts: dict[str, float], warnings: list[str]) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="\0")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        parser.read_string(text, source=path)
    except (configparser.Error, UnicodeDecodeError, OSError) as e:
        raise BadConfiguration(path, " ".join(str(e).split())) from None
    for section in parser.sections():
        for key, value in parser.items(section):
            place = f"{path}:{_line(text, section, key)}"
            if section == _HOOK_TIMEOUTS:
                timeouts[key] = _convert(place, section, key, value, _seconds)
            elif section in _OURS:
                if key not in _OURS[section]:
                    known = ", ".join(sorted(_OURS[section]))
                    raise BadConfiguration(place, f"[{section}] has no key {key!r}; it knows: {known}")
                setting, reader = _OURS[section][key]
                values[setting] = _convert(place, section, key, value, reader)
            elif key in _FOREIGN.get(section, {}):
                setting, reader = _FOREIGN[section][key]
                try:
                    values[setting] = reader(value)
                except ValueError as e:
                    warnings.append(f"{place}: [{section}] {key} = {value!r} is ignored: {e}")
            else:
                warnings.append(f"{place}: [{section}] {key} has no meaning for this agent and is ignored")


def _convert(place: str, section: str, key: str, value: str, reader: Callable[[str], Any]) -> Any:
    try:
        return reader(value)
    except ValueError as e:
        raise BadConfiguration(place, f"[{section}] {key} = {value!r}: {e}") from None


def _line(text: str, section: str, key: str) -> int:
    """Line of the key (the last one in the section, which is the one that wins)."""
    found, here = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("[") and "]" in stripped:
            here = stripped[1 : stripped.index("]")]
        elif here == section and stripped.partition("=")[0].partition(":")[0].strip() == key:
            found = number
    return found

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
import difflib
import glob
import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    io_request_timeout_s: float = 60.0
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
    vm_start_slots: int = 0
    stats_interval_s: float = 15.0
    warnings: tuple[str, ...] = ()


def _number(kind: Callable[[str], float], accepts: Callable[[float], bool], expected: str) -> Callable[[str], Any]:
    """One sentence for what is no number and for one that is too large."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"expected {expected}") from None
        if not accepts(value):
            raise ValueError(f"expected {expected}")
        return value

    return read


_seconds = _number(float, lambda value: 0 < value < 86400, "seconds, more than 0 and less than a day")
_port = _number(int, lambda value: 0 <= value < 65536, "a port number")


def _between(low: int, high: int) -> Callable[[str], int]:
    return _number(int, lambda value: low <= value <= high, f"a whole number from {low} to {high}")


def _yes(text: str) -> bool:
    value = configparser.ConfigParser.BOOLEAN_STATES.get(text.strip().lower())
    if value is None:
        raise ValueError("expected true or false")
    return value


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError("expected an IPv4 or IPv6 address") from None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.replace(",", " ").split())


def _level(text: str) -> str:
    word = text.strip().upper()
    if word not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("expected DEBUG, INFO, WARNING or ERROR")
    return word


class Key(NamedTuple):
    setting: str  # of `Settings`
    read: Callable[[str], Any]  # raises ValueError
    meaning: str  # its row in docs/settings.md


# section -> key
FOREIGN: dict[str, dict[str, Key]] = {
    "vars": {
        "ssl": Key(
            "ssl", _yes, "TLS with client certificates at the engine's port; without it the port is for reading only"
        ),
        "ssl_ciphers": Key(
            "ssl_ciphers", str.strip, "ciphers of TLS 1.2, in OpenSSL's words; empty: OpenSSL's own choice"
        ),
        "verify_client_cert": Key(
            "match_client_names", _yes, "a client's certificate must name the address that it comes from"
        ),
    },
    "addresses": {
        "management_port": Key("management_port", _port, "TCP port of the engine's connections"),
        "management_ip": Key(
            "management_address", _address, "address of that port; `::` is every address, also of IPv4"
        ),
    },
    "sanlock": {
        "io_timeout": Key(
            "sanlock_io_timeout_s", _between(1, 60), "seconds that sanlock waits for one access; the same on all hosts"
        ),
    },
    "irs": {
        "process_pool_timeout": Key(
            "io_request_timeout_s",
            _seconds,
            "seconds that a request to a mount may take, its wait included; with less than the mount's own time-out "
            "nobody hears what it says",
        ),
        "sd_health_check_delay": Key("health_check_delay_s", _seconds, "seconds between two looks at a storage domain"),
    },
}
OURS: dict[str, dict[str, Key]] = {
    "agent": {
        "log_level": Key("log_level", _level, "`DEBUG`, `INFO`, `WARNING` or `ERROR`"),
        "plain_http_address": Key(
            "plain_http_address", str.strip, "address of a port without TLS, for reading only; empty: there is none"
        ),
        "plain_http_port": Key("plain_http_port", _port, "its TCP port"),
        "stats_interval_s": Key("stats_interval_s", _seconds, "seconds between two samples of the VMs' statistics"),
    },
    "access": {
        "operator_custom_properties": Key(
            "operator_custom_properties",
            _words,
            "custom properties of VMs that an operator may set, separated by blanks: each can start hook scripts",
        ),
    },
    "hooks": {
        "timeout_s": Key("hook_timeout_s", _seconds, "seconds that all scripts of one hook point may take together"),
    },
    "virt": {
        "libvirt_uri": Key("libvirt_uri", str.strip, "the libvirt daemon"),
        "start_slots": Key(
            "vm_start_slots", _between(0, 64), "VMs launched at the same time; 0: two a core, as memory goes"
        ),
    },
}
HOOK_TIMEOUTS = "hook_timeouts"  # section of ours: hook point = seconds


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
    except configparser.MissingSectionHeaderError as e:
        place = f"{path}:{e.lineno}"
        raise BadConfiguration(place, f"{e.line.strip()!r} stands below no [section]") from None
    except configparser.ParsingError as e:
        number, line = e.errors[0]  # Python has made a literal of the line
        raise BadConfiguration(f"{path}:{number}", f"{line} is neither a [section] nor key = value") from None
    except UnicodeDecodeError as e:
        raise BadConfiguration(path, f"is no text in UTF-8 (byte {e.start})") from None
    except OSError as e:
        raise BadConfiguration(path, f"can't be read: {e.strerror}") from None
    for section in parser.sections():
        for key, value in parser.items(section):
            place = f"{path}:{_line(text, section, key)}"
            if section == HOOK_TIMEOUTS:
                timeouts[key] = _convert(place, section, key, value, _seconds)
            elif section in OURS:
                if key not in OURS[section]:
                    known = ", ".join(sorted(OURS[section]))
                    meant = _meant(key, OURS[section])
                    raise BadConfiguration(place, f"[{section}] has no key {key!r}; it knows: {known}{meant}")
                ours = OURS[section][key]
                values[ours.setting] = _convert(place, section, key, value, ours.read)
            elif key in FOREIGN.get(section, {}):
                foreign = FOREIGN[section][key]
                try:
                    values[foreign.setting] = foreign.read(value)
                except ValueError as e:
                    warnings.append(f"{place}: [{section}] {key} = {value!r} is ignored: {e}")
            else:
                meant = _meant(key, FOREIGN[section]) if section in FOREIGN else _meant_section(section)
                warnings.append(f"{place}: [{section}] {key} has no meaning for this agent and is ignored{meant}")


def _meant(name: str, known: Iterable[str], form: str = "{}") -> str:
    """As the end of a sentence. Only what is very near: VDSM has many keys that this agent does not know."""
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.75)
    return f"; did you mean {form.format(close[0])}?" if close else ""


def _meant_section(name: str) -> str:
    return _meant(name, (*OURS, HOOK_TIMEOUTS, *FOREIGN), "[{}]")


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

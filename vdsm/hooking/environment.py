# SPDX-License-Identifier: GPL-2.0-or-later
"""The environment of a hook script.

In this order, later ones win: the agent's own environment; parameters of the call; custom properties of
the VM; ``vmId``; ``PYTHONPATH`` with the script library appended; ``_hook_domxml`` or ``_hook_json``.

Scripts run under the system's Python: what belongs to the agent's own installation (its prefix in PATH and
PYTHONPATH, VIRTUAL_ENV) is left out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from vdsm.common.commands import PATH
from vdsm.hooking.errors import ForbiddenProperty

SCRIPT_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scriptlib")
FILE_OF_XML = "_hook_domxml"
FILE_OF_JSON = "_hook_json"

_FORBIDDEN = frozenset({"PATH", "IFS", "BASH_ENV"})
_FORBIDDEN_BEGINNINGS = ("LD_", "PYTHON", "_hook_", "BASH_FUNC_", "PERL5")
_OURS = frozenset({"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "VDSM_CRASH_AT"})


class HookVm(Protocol):
    """The VM that a script is run for."""

    @property
    def vm_id(self) -> str: ...
    @property
    def custom(self) -> Mapping[str, str]: ...


def base(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every script gets of the agent's own environment."""
    found = dict(os.environ if environ is None else environ)
    for name in list(found):
        if name in _OURS or (name.startswith(("LD_", "_hook_", "PYTHON")) and name != "PYTHONPATH"):
            del found[name]
    found["PATH"] = _without_ours(found.get("PATH", "")) or PATH
    found["PYTHONPATH"] = ":".join(
        part for part in (_without_ours(found.get("PYTHONPATH", "")), SCRIPT_LIBRARY) if part
    )
    found.setdefault("LC_ALL", "C.UTF-8")
    return found


def compose(
    environ: Mapping[str, str], params: Mapping[str, Any], vm: HookVm | None
) -> tuple[dict[str, str], list[str]]:
    """(environment without the data file's name, refused names). Values become text."""
    given: dict[str, Any] = dict(params)
    if vm is not None:
        given.update(vm.custom)
    refused = sorted(name for name, value in given.items() if is_forbidden(name) or "\0" in str(value))
    composed = dict(environ)
    composed.update({name: str(value) for name, value in given.items() if name not in refused})
    if vm is not None:
        composed["vmId"] = vm.vm_id
    return composed, refused


def is_forbidden(name: str) -> bool:
    """Whether a custom property of this name would change how scripts are run, or is no name at all."""
    return not name or name in _FORBIDDEN or name.startswith(_FORBIDDEN_BEGINNINGS) or "=" in name or "\0" in name


def refusal(names: Iterable[str]) -> ForbiddenProperty:
    return ForbiddenProperty(", ".join(repr(name) for name in names))


def _without_ours(search_path: str) -> str:
    ours = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.exec_prefix) if prefix != sys.base_prefix}
    ours.add(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

    def is_ours(part: str) -> bool:
        real = os.path.realpath(part)
        return any(real == prefix or real.startswith(prefix + os.sep) for prefix in ours)

    return ":".join(part for part in search_path.split(":") if part and not is_ours(part))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verb of the API: wire name, role, kind, types, code.

A verb is declared where it is written::

    class VolumeCreate(Params):
        volume_id: Uuid = field(name="volumeID")

    @verb("Volume.create", role=Role.ADMIN, kind="task")
    async def volume_create(call: Call, params: VolumeCreate) -> TaskId:
        \"\"\"Create a volume. (The docstring is the verb's documentation.)\"\"\"

``kind``: *sync* is done or started when the reply comes, *task* replies with the id of an SPM task,
*job* uses an id that the caller chose. A verb whose role is above reader changes something and gets a
line in the audit log (``changes`` states otherwise). An ``urgent`` verb never waits for its turn: it
keeps the host alive in its clients' eyes and must end at once.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from vdsm.api.call import Call
from vdsm.api.roles import Role
from vdsm.api.types import Params

Kind = Literal["sync", "task", "job"]
P = TypeVar("P", bound=Params)
R = TypeVar("R")
Function = Callable[[Call, P], Awaitable[R]]


@dataclass(frozen=True)
class Verb:
    name: str
    role: Role
    kind: Kind
    params: type[Params]
    result: Any  # a type; None: the wire shows true
    run: Callable[[Call, Any], Awaitable[Any]]
    changes: bool
    urgent: bool

    @property
    def namespace(self) -> str:
        return self.name.partition(".")[0]

    @property
    def documentation(self) -> str:
        return inspect.getdoc(self.run) or ""


Verbs = dict[str, Verb]
VERBS: Verbs = {}


def verb(
    name: str,
    *,
    role: Role,
    kind: Kind = "sync",
    changes: bool | None = None,
    urgent: bool = False,
    into: Verbs = VERBS,
) -> Callable[[Function[P, R]], Function[P, R]]:
    """Declare a verb under its wire name."""

    def declare(function: Function[P, R]) -> Function[P, R]:
        if name in into:
            raise ValueError(f"verb {name} is declared twice")
        hints = typing.get_type_hints(function, include_extras=True)
        params = hints.get("params")
        if not (isinstance(params, type) and issubclass(params, Params)) or "return" not in hints:
            raise TypeError(f"verb {name} must be async def f(call: Call, params: <Params>) -> <result>")
        into[name] = Verb(
            name=name,
            role=role,
            kind=kind,
            params=params,
            result=hints["return"],
            run=function,
            changes=(role is not Role.READER) if changes is None else changes,
            urgent=urgent,
        )
        return function

    return declare


def load() -> Verbs:
    """All verbs of the agent: imports every module of `vdsm.api`."""
    import vdsm.api

    for module in pkgutil.walk_packages(vdsm.api.__path__, "vdsm.api."):
        importlib.import_module(module.name)
    return VERBS

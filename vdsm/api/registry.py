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
keeps the host alive in its clients' eyes and must end at once. What a call is about, and which verbs keep
their order, is data of `vdsm.api.lines`. ``lacks`` says what a built verb does not do
yet, for `coverage`. Verbs of the contract that no function stands for are rows: they have no ``run``, and are
refused after access and parameters were checked.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from vdsm.api import contract, lines
from vdsm.api.call import Call
from vdsm.api.contract import Kind
from vdsm.api.contract_types import params_of
from vdsm.api.roles import Role
from vdsm.api.types import Params

# answered on every port while the agent still looks for its VMs: a change of networks must be kept in time
EARLY = frozenset({"Host.confirmConnectivity", "rpc.discover"})
# never refused, however long the line of its caller is: without an answer engines give the host up
VITAL = frozenset(
    {
        "Host.ping2",
        "Host.confirmConnectivity",
        "Host.getCapabilities",
        "Host.getStats",
        "Host.getAllVmStats",
        "StoragePool.getSpmStatus",
    }
)
VITAL_NAMESPACE = "Task"

P = TypeVar("P", bound=Params)
R = TypeVar("R")
Function = Callable[[Call, P], Awaitable[R]]


@dataclass(frozen=True)
class Verb:
    name: str
    role: Role
    kind: Kind
    make_params: Callable[[], type[Params]]
    result: Any  # a type; None: the wire shows true
    run: Callable[[Call, Any], Awaitable[Any]] | None  # None: not built
    changes: bool
    urgent: bool
    lacks: str = ""

    @functools.cached_property
    def params(self) -> type[Params]:
        return self.make_params()

    @property
    def early(self) -> bool:
        return self.name in EARLY

    @functools.cached_property
    def vital(self) -> bool:
        return self.overtakes or self.name in VITAL or self.namespace == VITAL_NAMESPACE

    @functools.cached_property
    def overtakes(self) -> bool:
        return self.name in lines.OVERTAKING

    @functools.cached_property
    def subject(self) -> lines.Names | None:
        return lines.subject(self.params)

    @functools.cached_property
    def line(self) -> lines.Names | None:
        return lines.line(self.name, self.params)

    @property
    def state(self) -> str:
        if self.run is None:
            return "not built"
        return f"partial: {self.lacks}" if self.lacks else "built"

    @property
    def namespace(self) -> str:
        return self.name.partition(".")[0]

    @property
    def documentation(self) -> str:
        return "Not built yet: answers error 44." if self.run is None else inspect.getdoc(self.run) or ""


Verbs = dict[str, Verb]
VERBS: Verbs = {}


def verb(
    name: str,
    *,
    role: Role,
    kind: Kind = "sync",
    changes: bool | None = None,
    urgent: bool = False,
    lacks: str = "",
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
            make_params=lambda: params,
            result=hints["return"],
            run=function,
            changes=(role is not Role.READER) if changes is None else changes,
            urgent=urgent,
            lacks=lacks,
        )
        return function

    return declare


def load() -> Verbs:
    """All verbs of the agent: imports every module of `vdsm.api`, adds the contract's rows that nobody built."""
    import vdsm.api

    for module in pkgutil.walk_packages(vdsm.api.__path__, "vdsm.api."):
        importlib.import_module(module.name)
    for name, row in contract.rows().items():
        if name not in VERBS:
            VERBS[name] = _not_built(name, row)
    return VERBS


def _not_built(name: str, row: contract.Row) -> Verb:
    role = Role(row.role)
    return Verb(
        name=name,
        role=role,
        kind=row.kind,
        make_params=functools.partial(params_of, name),
        result=Any,
        run=None,
        changes=role is not Role.READER,
        urgent=False,
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs of the root helper, each with the type of its parameters.

A verb is declared beside its code::

    class MountParams(msgspec.Struct, forbid_unknown_fields=True):
        mount_id: str

    @root_verb("Mount.mount", MountParams)
    async def mount(helper: Helper, params: MountParams) -> Json: ...

Parameters are converted strictly before the verb sees them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from vdsm.common import masking
from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.owners import Lane
from vdsm.common.paths import Paths
from vdsm.common.types import Json

P = TypeVar("P", bound=msgspec.Struct)


class NoSuchRootVerb(AgentError):
    verb: str
    msg = "The root helper has no verb {self.verb!r}"


@dataclass
class Helper:
    """What every verb may use. ``secrets``: of mounts that are defined and not mounted yet, by mount id and option."""

    paths: Paths
    agent_uid: int
    agent_gid: int
    secrets: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    lanes: dict[str, Lane] = field(default_factory=dict, repr=False)

    def lane(self, owner: str) -> Lane:
        """One change at a time of what has that name."""
        return self.lanes.setdefault(owner, Lane(owner))


@dataclass(frozen=True)
class RootVerb:
    name: str
    params: type[msgspec.Struct]
    run: Callable[[Helper, Any], Awaitable[Json]]


VERBS: dict[str, RootVerb] = {}


def root_verb(
    name: str, params: type[P]
) -> Callable[[Callable[[Helper, P], Awaitable[Json]]], Callable[[Helper, P], Awaitable[Json]]]:
    def declare(run: Callable[[Helper, P], Awaitable[Json]]) -> Callable[[Helper, P], Awaitable[Json]]:
        if name in VERBS:
            raise ValueError(f"root verb {name} is declared twice")
        VERBS[name] = RootVerb(name, params, run)
        return run

    return declare


async def dispatch(helper: Helper, name: str, params: dict[str, Any]) -> Json:
    """Convert and run. Raises `NoSuchRootVerb`, `InvalidParameter`, or the verb's own error.

    What the parameters hold as secrets is hidden in all that is logged and told of this call.
    """
    masking.know(masking.secrets_in(params))
    verb = VERBS.get(name)
    if verb is None:
        raise NoSuchRootVerb(name)
    try:
        converted = msgspec.convert(params, verb.params, strict=True)
    except msgspec.ValidationError as e:
        raise InvalidParameter(name, "the parameters", str(e)) from None
    return await verb.run(helper, converted)

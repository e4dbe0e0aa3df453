# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may do what.

An identity is made by a transport from what the channel proves (peer credentials of a unix socket,
a client certificate), never from what a message says. Roles are ordered but for ``PEER``, another
host of the cluster: it may read and call the few verbs that hosts call on each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vdsm.common.errors import AgentError


class Role(StrEnum):
    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"
    PEER = "peer"


# role of the caller -> roles of the verbs that it may call
_ALLOWS: dict[Role, frozenset[Role]] = {
    Role.READER: frozenset({Role.READER}),
    Role.OPERATOR: frozenset({Role.READER, Role.OPERATOR}),
    Role.PEER: frozenset({Role.READER, Role.PEER}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True)
class Identity:
    """The caller. ``name`` is for people and the audit log; ``client`` names one program for fair turns."""

    name: str
    role: Role
    client: str = ""

    def may_call(self, role: Role) -> bool:
        return role in _ALLOWS[self.role]


class AccessDenied(AgentError):
    who: str
    role: str
    verb: str
    needed: str
    msg = "{self.who} has role {self.role}; {self.verb} needs role {self.needed}"
    remedy = "Locally: call as root or vdsm, or join the group vdsm-operator. Over the port: /etc/vdsm/access.toml"

# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be wrong with a domain XML, told with the place in it."""

from __future__ import annotations

from vdsm.common.errors import AgentError


class BadDomainXml(AgentError):
    """The XML is well formed but can't be the domain of a VM of ours."""

    what: str
    reason: str
    msg = "The domain XML is invalid at {self.what}: {self.reason}"

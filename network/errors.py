# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be wrong with networking. The numbers of the wire are in ``vdsm.api.codes.network``."""

from __future__ import annotations

from vdsm.common.errors import AgentError, InvalidParameter


class BadParams(InvalidParameter):
    """The request contradicts itself or has a value of the wrong kind."""


class BadAddress(InvalidParameter):
    """An address, netmask, prefix or gateway that is none, or that does not fit the others."""


class BadNic(InvalidParameter):
    """There is no such NIC."""


class UsedNic(InvalidParameter):
    """The NIC already belongs to something else."""


class BadBonding(InvalidParameter):
    """A bond that can't be made here."""


class BadVlan(InvalidParameter):
    """A VLAN that can't be made here."""


class BadBridge(InvalidParameter):
    """A network name that is no device name, or one that belongs to somebody else."""


class UsedBridge(InvalidParameter):
    """A bridge that still has ports which are not ours."""


class SetupFailed(AgentError):
    step: str
    reason: str
    msg = "Networks were not changed: {self.step}: {self.reason}. The old configuration is back"


class RollbackIncomplete(AgentError):
    what: str
    msg = "The old network configuration is not wholly back: {self.what}"
    remedy = "The journal is kept; it is tried again by the next change, and when the root helper starts"


class NotWritten(AgentError):
    reason: str
    msg = "The networks are changed and stay so, but that could not be written down: {self.reason}"
    remedy = "Make room below /var/lib/vdsm-root; the next change or start of the root helper writes it again"


class ConnectivityLost(AgentError):
    seconds: float
    msg = "connectivity check failed: nobody confirmed within {self.seconds:g} s. The old configuration is back"


class SetupRunning(AgentError):
    msg = "Networks are being set up already; try again when that has ended"


class NotPending(AgentError):
    msg = "No network change waits for confirmation: it was rolled back or never begun"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Codes of errors about VMs (wire.md §7)."""

from __future__ import annotations

from vdsm.common.errors import AgentError
from vdsm.virt import errors
from vdsm.virt.domain_xml.errors import BadDomainXml

CODES: dict[type[AgentError], int] = {
    errors.VirtError: 100,
    errors.NoSuchVm: 1,
    errors.VmExists: 4,
    errors.VmIsDown: 6,
    errors.VmStarting: 6,
    errors.VmIdDiffers: 1000,
    BadDomainXml: 9,
    # the field answers "exist" here; the engine treats both as a plain failure
    errors.NoPowerdownWay: 4,
    errors.DestroyFailed: 42,
    errors.CalledBack: 16,
    errors.Superseded: 16,
    errors.VmBusy: 16,
    errors.NoGuestAgent: 19,
    errors.ClaimedByJob: 51,
    errors.UnsupportedParameter: 44,
    errors.Recovering: 99,
}

# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's exceptions as errors of ours.

libvirt keeps the last error of each thread, and freeing one of its objects clears it. When Python's garbage collector
frees one between a call's failure and the making of its exception, that has neither code nor text (seen). So nothing
here leaves libvirt's objects to the collector, and a look that failed without a word is made again.
"""

from __future__ import annotations

import libvirt

from vdsm.virt.errors import DomainMissing, HypervisorError, HypervisorLost, VirtError

_CONNECTION_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_CONNECTION_CODES = frozenset(
    {libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_NO_CONNECT}
)


def is_connection_loss(error: libvirt.libvirtError) -> bool:
    if error.get_error_code() == libvirt.VIR_ERR_INVALID_CONN:
        return True
    return error.get_error_domain() in _CONNECTION_DOMAINS and error.get_error_code() in _CONNECTION_CODES


def says_nothing(error: libvirt.libvirtError) -> bool:
    """Whether the failure is none of the call's own: a look that failed so may succeed now."""
    return error.get_error_code() is None or is_connection_loss(error)


def translate(call: str, vm_id: str, error: libvirt.libvirtError) -> VirtError:
    """``call`` is what was attempted, as an infinitive."""
    if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainMissing(vm_id)
    if is_connection_loss(error):
        return HypervisorLost(call)
    return HypervisorError(call, error.get_error_code() or 0, error.get_error_message() or str(error))

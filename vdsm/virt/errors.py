# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong with a VM, in the words of the person who asked for it."""

from __future__ import annotations

from vdsm.common.errors import AgentError, DeadlineExceeded


class VirtError(AgentError):
    msg = "The VM operation failed"


class NoSuchVm(VirtError):
    vm_id: str
    msg = "VM {self.vm_id} does not run on this host"


class VmExists(VirtError):
    vm_id: str
    status: str
    msg = "VM {self.vm_id} is already on this host, its status is {self.status}"


class VmIdDiffers(VirtError):
    vm_id: str
    in_xml: str
    msg = "Parameter 'vmID' is {self.vm_id}, but the domain XML is of {self.in_xml}"


class UnsupportedParameter(VirtError):
    name: str
    msg = "Parameter {self.name!r} is not supported yet"


class VmIsDown(VirtError):
    vm_id: str
    action: str
    msg = "Can't {self.action} VM {self.vm_id}: it does not run"


class VmStarting(VirtError):
    vm_id: str
    action: str
    msg = "Can't {self.action} VM {self.vm_id}: it is still being started"


class NoSuchVmJob(VirtError):
    vm_id: str
    job_id: str
    msg = "VM {self.vm_id} has no job {self.job_id}"


class ClaimedByJob(VirtError):
    """Something longer goes on with the VM that this must not meet."""

    vm_id: str
    wanted: str
    holder: str
    held_s: float
    msg = "VM {self.vm_id}: {self.wanted} can't begin, {self.holder} goes on for {self.held_s:.0f} s"
    remedy = "Wait for its end, or abort it"


class Superseded(VirtError):
    """Somebody asked for the opposite while a hook ran."""

    vm_id: str
    action: str
    by: str
    msg = "VM {self.vm_id}: {self.action} was overtaken by {self.by}, which was asked for later"


class CalledBack(VirtError):
    """The same verb again while its own before-hook runs."""

    vm_id: str
    action: str
    msg = "Can't {self.action} VM {self.vm_id}: a call that does it waits for its hooks"


class VmBusy(VirtError):
    """The state does not take the verb."""

    vm_id: str
    action: str
    status: str
    msg = "Can't {self.action} VM {self.vm_id} now: its status is {self.status}"


class NoGuestAgent(VirtError):
    vm_id: str
    msg = "The guest agent of VM {self.vm_id} is not connected"
    remedy = "Install and start qemu-guest-agent in the guest"


class NoPowerdownWay(VirtError):
    vm_id: str
    msg = "VM {self.vm_id} can't be shut down softly: it has neither a connected guest agent nor ACPI"
    remedy = "Call VM.shutdown with force, or VM.destroy"


class Recovering(VirtError):
    msg = "The agent is still finding out which VMs run on this host"
    remedy = "Try again in a few seconds; 'vdsm doctor' tells whether libvirt answers"


class ForeignDomain(VirtError):
    vm_id: str
    name: str
    msg = "libvirt has a domain {self.name!r} with the uuid {self.vm_id} that is not the agent's: it is left alone"


class HostLacks(VirtError):
    """``missing``: each thing with what to do."""

    missing: str
    msg = "The domain XML names what is not on this host: {self.missing}"
    remedy = "Make it as the message says, or start the VM on a host that has it"


class StillRuns(VirtError):
    """libvirt knows no such domain, and a QEMU of that id is there all the same."""

    vm_id: str
    pid: int
    msg = "VM {self.vm_id} can't start: an earlier QEMU of it, process {self.pid}, still has its disks open"
    remedy = "It hangs in the kernel on dead storage, or libvirt lost it: mend the storage, or end that process"


class DestroyFailed(VirtError):
    vm_id: str
    reason: str
    msg = "VM {self.vm_id} could not be stopped: {self.reason}"


class RecordNotWritten(VirtError):
    vm_id: str
    reason: str
    msg = "The record of VM {self.vm_id} can't be written into /var/lib/vdsm/vms: {self.reason}"
    remedy = "Make room in /var/lib/vdsm (df, and df -i), or mend its file system, then call it again"


class StartStopped(VirtError):
    """The start ended because someone destroyed the VM meanwhile."""

    vm_id: str
    msg = "VM {self.vm_id} was destroyed while it was being started"


class HypervisorError(VirtError):
    """libvirt refused a call."""

    call: str
    code: int
    text: str
    msg = "libvirt failed to {self.call}: {self.text}"


class DomainMissing(VirtError):
    vm_id: str
    msg = "libvirt has no domain {self.vm_id}"


class HypervisorLost(VirtError):
    call: str
    msg = "The connection to libvirt broke while it was asked to {self.call}: whether it was done is not known yet"
    remedy = "See whether libvirtd answers (vdsm doctor), and how the VM is, then call it again"


class Unanswered(DeadlineExceeded):
    """It was begun, and may still be done."""

    remedy = "See whether libvirtd answers (vdsm doctor); restarting it stops no VM"


class NotBegun(DeadlineExceeded):
    """Its turn did not come in time: nothing was done, and nothing will be."""

    msg = "{self.what} did not begin within {self.seconds:g} s: nothing was done"
    remedy = "Look for calls that hang in the log ('hangs'); restarting libvirtd ends them without stopping VMs"


class TooManyStuckCalls(VirtError):
    """``calls``: what hangs, and for how long."""

    pool: str
    count: int
    calls: str
    msg = "{self.count} calls to libvirt hang ({self.pool}: {self.calls}): no further one is started"
    remedy = "Look for a hung QEMU or storage; restarting libvirtd ends such calls without stopping VMs"


class VmCallsHang(VirtError):
    """``calls``: what hangs, and for how long."""

    vm_id: str
    pool: str
    count: int
    calls: str
    msg = "VM {self.vm_id}: {self.count} calls to libvirt hang ({self.pool}: {self.calls}): no further one is started"
    remedy = "Look at its QEMU and its storage; VM.destroy still gets through, and restarting libvirtd ends such calls"

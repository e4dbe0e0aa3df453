# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of who uses volumes on this host: on record (`storage.in_use`), at `storage.domain.Chains`, in messages.

| name | from | until |
|---|---|---|
| ``vm:<id>`` | a VM's start | libvirt has no such domain |
| ``prepare:`` | Image.prepare | Image.teardown, or a reboot |
| ``nbd:<id>`` | NBD.start_server | NBD.stop_server |
| ``spm`` | the SPM role begins | it ends |
| ``job:<id>`` | a program looks at payloads, for a task or a job | it has ended, at the latest with its agent |

What came before the colon is the kind, what comes behind it says which one. Any other name on record is somebody's,
too: what is not known is not free. Agents before this one wrote ``prepare`` without its colon.
"""

from __future__ import annotations

PREPARE = "prepare:"
_WRITTEN_BEFORE = {"prepare": PREPARE}


def vm(vm_id: str) -> str:
    return f"vm:{vm_id}"


def job(job_id: str) -> str:
    return f"job:{job_id}"


def shown(name: str) -> str:
    """A name as people read it: who prepared an image is known by the verb that did."""
    return "Image.prepare" if name == PREPARE else name


def read(name: str) -> str:
    """A name as it stood on record, in today's form."""
    return _WRITTEN_BEFORE.get(name, name)

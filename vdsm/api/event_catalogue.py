# SPDX-License-Identifier: GPL-2.0-or-later
"""``docs/events.md``: every event that the agent sends.

``python -m vdsm.api.event_catalogue`` writes the page. The checks of the source fail when the page differs, when code
publishes an event without a row here, and when a row's event is published nowhere.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    component: str
    operation: str
    last: str  # the last part of its name
    when: str
    params: str


CATALOGUE = (
    Row(
        "virt",
        "VM_status",
        "id of the VM",
        "a VM's state, or why it is in it, changed",
        "by the VM's id an object: `vmId`, `status`, `hash`, `statusTime`; of a paused VM `pauseCode`, and `ioerror` "
        "when a disk stopped it; of one that is down `exitCode`, `exitReason`, `exitMessage`, `timeOffset`",
    ),
    Row(
        "jobs",
        "status",
        "id of the job",
        "a job on this host ended",
        "`id`, `status`, `description`, `job_type`, `progress`, as in `Host.getJobs`",
    ),
    Row(
        "net",
        "host_conn",
        "`no_id`",
        "networks were changed, and the engine should show by a call that it still reaches the host",
        "none",
    ),
    Row(
        "hook",
        "failed",
        "id of the VM, or the hook point",
        "a script failed at a point that ends no operation: without this event nobody would know",
        "`point`, `message`, `vmId`, and of a script that ran `script`, `exitCode`, `stderr`",
    ),
    Row(
        "storage",
        "change_ended",
        "id of the domain or pool",
        "a change of a domain or pool ended whose caller was told that it is under way, or went away before",
        "`message`",
    ),
    Row(
        "storage",
        "odd_task",
        "id of the pool",
        "this host became SPM and found something in the tasks' folder of the master domain that is no task it can "
        "read: it was left alone",
        "`message`",
    ),
    Row(
        "host",
        "certificate",
        "the certificate's name",
        "a certificate of this host ends soon; told once a day",
        "`certificate`, `expires`, `days_left`",
    ),
)

_HEAD = """# Events

Written by `make openrpc`. An event is a JSON-RPC notification named `|component|operation|last part`. Each carries
`notify_time`, milliseconds of the field's clock ([rpc](rpc.md#events)). `vdsm events --follow` shows them as they come.

| event | last part | sent when | parameters |
|---|---|---|---|
"""


def page() -> str:
    """The page as it is checked in."""
    rows = [f"| `{row.component}` `{row.operation}` | {row.last} | {row.when} | {row.params} |\n" for row in CATALOGUE]
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    print(page(), end="")

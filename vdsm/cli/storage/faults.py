# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with the storage of this host, each with what to do about it. Pure, from what the agent answers.

Worst first: what stops VMs, then what stops changes, then what waits for somebody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vdsm.cli.output import duration
from vdsm.cli.storage.asked import Row
from vdsm.cli.storage.connections import Seen

LONG_S = 60.0
"""Nobody waits as long for a lock, but behind what is stuck or has much to do."""

_SILENT = 200
_OF_NFS = {
    _SILENT: "look at the server and the network on the way: what waits goes on when it answers",
    384: "on the server: exportfs -ra; then disconnect the storage and connect it again",
    385: "on the server: rw for this host in the exports line, and is its file system read-only?",
    469: "on the server: is this host in the exports line, and does the folder belong to 36:36?",
}
_OF_ANY = {
    _SILENT: "look at what it lies on: journalctl -k",
    358: "connect its storage again; was it removed there?",
    384: "disconnect the storage and connect it again",
    385: "is its file system mounted read-only, after an error? journalctl -k",
    469: "user 36:36 must own the folder and be able to enter it: chown, chmod",
}

_GIVE_UP = "vdsm call StoragePool.disconnectStorageServer"


@dataclass(frozen=True)
class Fault:
    what: str
    do: str
    is_warning: bool = False


def of_domains(domains: Iterable[Row]) -> Iterator[Fault]:
    for domain in domains:
        health, name = domain["health"], titled(domain)
        if health is None:
            if domain["trouble"] and domain["status"] is not None:
                yield Fault(f"{name}: {domain['trouble']}", _remedy(domain, _SILENT), is_warning=True)
            continue
        if not health["checked"]:
            continue
        if not health["valid"]:
            where = f" ({domain['server']})" if domain.get("server") else ""
            bad = f"{name}{where} is bad for {duration(health['sinceSeconds'])}: {health['reason']}"
            yield Fault(bad, _remedy(domain, health["code"]))
        elif not health["hostIdHeld"]:
            yield _not_held(domain, name)
        elif health["reason"]:
            yield Fault(f"{name}: {health['reason']}", "make room: remove what nobody needs, or enlarge it")


def _remedy(domain: Row, code: int) -> str:
    known = {**_OF_ANY, **(_OF_NFS if domain.get("kind") == "NFS" else {})}
    return known.get(code, known[_SILENT])


def _not_held(domain: Row, name: str) -> Fault:
    if domain["health"]["reason"]:
        remedy = "give one of two hosts with one id another; vdsm doctor, when sanlock does not answer"
        return Fault(f"{name}: {domain['health']['reason']}", remedy)
    joining = f"{name}: host id {domain['hostId']} is being acquired"
    return Fault(joining, "wait: up to a minute, after an unclean end 200 s", is_warning=True)


def of_leases(found: Iterable[Row]) -> Iterator[Fault]:
    for domain in found:
        for lease in domain["leases"]:
            if lease["ended"]:
                kept = ", ".join(lease["writers"])
                what = f"domain {domain['domain']}: writers of process {lease['pid']}, which has ended, keep its lease"
                yield Fault(f"{what}: {kept}", "bring the domain's storage back, or restart this host")


def of_pools(pools: Iterable[Row]) -> Iterator[Fault]:
    for pool in pools:
        lease = pool["spmLease"]
        if pool["spmStatus"] != "Free" or lease is None or lease["ended"]:
            continue
        if lease["hostId"] is None:
            what = f"pool {pool['id']} has no SPM: disks can't be made or removed"
            if pool["spmEnded"]:
                what += f" (on this host: {pool['spmEnded']})"
            yield Fault(what, "an engine elects one; by hand: vdsm call StoragePool.spmStart", is_warning=True)
        elif lease["status"] in ("dead", "fail"):
            name = f" ({lease['name']})" if lease["name"] else ""
            what = f"the SPM of pool {pool['id']}, host id {lease['hostId']}{name}, is {lease['status']}"
            yield Fault(what, "an engine elects another; by hand: vdsm call StoragePool.spmStart", is_warning=True)


def of_connections(found: Iterable[Seen]) -> Iterator[Fault]:
    for one in found:
        if one.state in ("failed", "lost"):
            what = f"{one.kind} connection {one.connection} {'has failed' if one.state == 'failed' else 'is lost'}"
            yield Fault(f"{what}: {one.reason}", f"mend that and connect it again; or give it up: {_GIVE_UP}")


def of_locks(found: Iterable[Row]) -> Iterator[Fault]:
    for lock in found:
        late = [waiter for waiter in lock["waiting"] if waiter["seconds"] >= LONG_S]
        if late:
            holders = ", ".join(holder["who"] for holder in lock["holders"])
            longest = max(late, key=lambda waiter: float(waiter["seconds"]))
            what = f"{longest['who']} waits for {duration(longest['seconds'])} for {lock['lock']}, which {holders} has"
            yield Fault(what, "vdsm storage locks shows all", is_warning=True)


def of_tasks(found: Sequence[Row]) -> Iterator[Fault]:
    for task in found:
        if task["failed"]:
            what = f"{task['kind']} {task['id']} ({task['verb']}) failed: {task['message']} (code {task['code']})"
            clear = "vdsm call Task.clear taskID=... forgets it" if task["kind"] == "task" else ""
            yield Fault(what, clear, is_warning=True)


def titled(domain: Row) -> str:
    name = f" {domain['name']}" if domain["name"] else ""
    return f"domain{name} {domain['id']}"

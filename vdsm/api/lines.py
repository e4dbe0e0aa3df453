# SPDX-License-Identifier: GPL-2.0-or-later
"""What calls are about, and which of them keep their order: data, by the wire names of verbs and parameters.

A call's *subject* is what it hangs on when it hangs: the VM, or the storage below. It is found by one rule, the first
name of `SUBJECTS` that a verb's parameters have (at the top, or in a structure there) and the call fills. A verb that
has none is about itself.

A *line* is a set of verbs of which one connection's calls about the same thing begin when the earlier have ended. What
a line's calls are about may be narrower than their subject: one image, not the whole domain. Verbs that end or abort
what others do *overtake*: they wait for nobody.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from vdsm.common.ids import BLANK_UUID

# wire name of a parameter -> what its value names; the first that a call has
SUBJECTS = {
    "vmID": "VM",
    "taskID": "task",
    "connectionParams": "server",
    "storagedomainID": "domain",
    "sdUUID": "domain",
    "sd_id": "domain",
    "storagepoolID": "pool",
}
# wire names that only lines need
_NARROWER = {"volumeID": "volume", "imageID": "image", "server_id": "server", "vol_id": "volume", "uuid": "ticket"}

# never refused, never behind what hangs: without them nothing could be ended
OVERTAKING = frozenset(
    {
        "VM.destroy",
        "VM.migrateCancel",
        "VM.thaw",
        "VM.stop_backup",
        "VM.refresh_disk",
        "Task.stop",
        "Task.clear",
        "Task.revert",
        "Host.abortV2VJob",
    }
)


@dataclass(frozen=True)
class Line:
    name: str
    of: str  # the parameter that says what a call is about; empty: the host
    verbs: str


# an overtaking verb in a line is waited for, and waits for none
LINES = (
    Line(
        "run",
        "vmID",
        "VM.create VM.migrationCreate VM.pause VM.cont VM.shutdown VM.reset VM.setDestroyOnReboot VM.hibernate "
        "VM.migrate",
    ),
    Line(
        "devices",
        "vmID",
        "VM.hotplugDisk VM.hotunplugDisk VM.hotplugNic VM.hotunplugNic VM.hotplugHostdev VM.hotunplugHostdev "
        "VM.hotplugLease VM.hotunplugLease VM.hotplugMemory VM.hotunplugMemory VM.setNumberOfCpus "
        "VM.changeCD VM.changeFloppy",
    ),
    Line("guest", "vmID", "VM.freeze VM.thaw"),
    Line("backup", "vmID", "VM.start_backup VM.stop_backup VM.redefine_checkpoints VM.delete_checkpoints"),
    Line("mirror", "vmID", "VM.diskReplicateStart VM.diskReplicateFinish"),
    Line("console", "vmID", "VM.setTicket"),
    Line("desktop", "vmID", "VM.desktopLogin VM.desktopLock VM.desktopLogoff"),
    Line(
        "tuning",
        "vmID",
        "VM.setBalloonTarget VM.setCpuTunePeriod VM.setCpuTuneQuota VM.setIoTune VM.updateVmPolicy "
        "VM.migrateChangeParams",
    ),
    Line("connection", "connectionParams", "StoragePool.connectStorageServer StoragePool.disconnectStorageServer"),
    Line(
        "membership",
        "storagepoolID",
        "StoragePool.create StoragePool.connect StoragePool.disconnect StoragePool.destroy",
    ),
    Line("spm", "storagepoolID", "StoragePool.spmStart StoragePool.spmStop"),
    Line("description", "storagepoolID", "StoragePool.setDescription"),
    Line(
        "membership",
        "storagedomainID",
        "StorageDomain.create StorageDomain.attach StorageDomain.activate StorageDomain.deactivate "
        "StorageDomain.detach StorageDomain.format",
    ),
    Line("devices", "storagedomainID", "StorageDomain.extend StorageDomain.resizePV"),
    Line("description", "storagedomainID", "StorageDomain.setDescription"),
    Line("monitoring", "sdUUID", "Host.startMonitoringDomain Host.stopMonitoringDomain"),
    Line("use", "imageID", "Image.prepare Image.teardown Volume.teardown"),
    Line("description", "volumeID", "Volume.setDescription"),
    Line("legality", "volumeID", "Volume.setLegality"),
    Line("use", "vol_id", "ManagedVolume.attach_volume ManagedVolume.detach_volume"),
    Line("serving", "server_id", "NBD.start_server NBD.stop_server"),
    Line("life", "uuid", "Host.extend_image_ticket Host.remove_image_ticket"),
    Line("secrets", "", "Host.registerSecrets Host.unregisterSecrets"),
    Line("tuning", "", "Host.setKsmTune Host.setMOMPolicy Host.setMOMPolicyParameters"),
    Line("log level", "", "Host.setLogLevel"),
)

_LINE_OF = {verb: line for line in LINES for verb in line.verbs.split()}
_KINDS = SUBJECTS | _NARROWER

# from a call's converted parameters to texts as "VM 5f0c..."; none when it does not fill them
Names = Callable[[Any], tuple[str, ...]]


def subject(params: type[msgspec.Struct]) -> Names | None:
    """What a call hangs on; None when the verb's parameters name nothing."""
    found = [_named(kind, path) for name, kind in SUBJECTS.items() if (path := _path(params, name)) is not None]
    if len(found) <= 1:
        return found[0] if found else None
    return lambda given: next((names for one in found if (names := one(given))), ())


def line(verb: str, params: type[msgspec.Struct]) -> Names | None:
    """The names of the lines that a call of ``verb`` stands in; None for a verb that is in no line."""
    its = _LINE_OF.get(verb)
    if its is None:
        return None
    if not its.of:
        host = (f"line {its.name} of the host",)
        return lambda given: host
    path = _path(params, its.of)
    if path is None:
        return None
    about = _named(_KINDS[its.of], path)
    return lambda given: tuple(f"line {its.name} of {name}" for name in about(given))


def _path(params: type[msgspec.Struct], name: str) -> tuple[str, ...] | None:
    """The attributes that lead to a parameter, at the top or one structure below."""
    fields = msgspec.structs.fields(params)
    for field in fields:
        if field.encode_name == name:
            return (field.name,)
    for field in fields:
        for inner in _structures(field.type):
            for below in msgspec.structs.fields(inner):
                if below.encode_name == name:
                    return field.name, below.name
    return None


def _structures(kind: Any) -> Iterator[type[msgspec.Struct]]:
    if get_origin(kind) is Annotated:
        yield from _structures(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _structures(member)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind


def _named(kind: str, path: tuple[str, ...]) -> Names:
    get = operator.attrgetter(path[0])
    inner = operator.attrgetter(path[1]) if len(path) > 1 else None

    def names(given: Any) -> tuple[str, ...]:
        value = get(given)
        if inner is not None:
            value = inner(value) if isinstance(value, msgspec.Struct) else None
        if isinstance(value, list):  # connections: each by where it leads
            return tuple(dict.fromkeys(f"{kind} {_address(one)}" for one in value))
        return (f"{kind} {value}",) if value and value != BLANK_UUID else ()

    return names


def _address(connection: Any) -> str:
    return f"{connection.connection or ''} {connection.iqn or ''}".strip()

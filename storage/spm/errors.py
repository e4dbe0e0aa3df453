# SPDX-License-Identifier: GPL-2.0-or-later
"""What a pool or the SPM role refuses. Wire numbers are in vdsm.api.codes.storage."""

from __future__ import annotations

from storage.errors import StorageError


class PoolUnknown(StorageError):
    pool_id: str
    msg = "This host is not connected to storage pool {self.pool_id}"


class AnotherPoolConnected(StorageError):
    pool_id: str
    connected_id: str
    msg = "This host is connected to storage pool {self.connected_id}: disconnect it before using {self.pool_id}"


class PoolConnected(StorageError):
    pool_id: str
    msg = "Storage pool {self.pool_id} is connected on this host: disconnect it first"


class PoolHostIdDiffers(StorageError):
    pool_id: str
    host_id: int
    connected_host_id: int
    msg = "Pool {self.pool_id} is connected with host id {self.connected_host_id}, not {self.host_id}"


class MapMissing(StorageError):
    pool_id: str
    msg = "Pool {self.pool_id} was connected with a map of its domains: parameter 'domainDict' is missing"


class NotThisHostId(StorageError):
    pool_id: str
    host_id: int
    connected_host_id: int
    msg = "This host has host id {self.connected_host_id} in pool {self.pool_id}, not {self.host_id}"


class MasterNotFound(StorageError):
    pool_id: str
    domain_id: str
    reason: str
    msg = "Master domain {self.domain_id} of pool {self.pool_id} was not found: {self.reason}"


class WrongMaster(StorageError):
    pool_id: str
    domain_id: str
    reason: str
    msg = "Domain {self.domain_id} is not the master of pool {self.pool_id}: {self.reason}"


class NotSpm(StorageError):
    pool_id: str
    msg = "This host is not the SPM of pool {self.pool_id}"
    remedy = "Send the call to the SPM host, or start the role with StoragePool.spmStart"


class IsSpm(StorageError):
    pool_id: str
    msg = "This host is the SPM of pool {self.pool_id}: stop the role first"


class SpmHangs(StorageError):
    """It holds the role until the kernel lets it go."""

    pool_id: str
    pid: int
    msg = "The SPM process {self.pid} of pool {self.pool_id} was killed and does not end: it hangs in the kernel"
    remedy = "Look at the master's storage; the role is free once the process has ended, or after a reboot"


class SpmBusy(StorageError):
    pool_id: str
    msg = "This host is already starting as SPM of pool {self.pool_id}"


class SpmStartFailed(StorageError):
    pool_id: str
    reason: str
    msg = "Pool {self.pool_id}: the SPM role was not started: {self.reason}"


class SpmLeaseNotAcquired(StorageError):
    pool_id: str
    reason: str
    msg = "The SPM lease of pool {self.pool_id} was not acquired: {self.reason}"


class WritersLeft(StorageError):
    """Of a process of this host that took the lease: its end did not free it."""

    lease: str
    pid: int
    writers: str
    msg = "Lease {self.lease} is held on this host by what is left of process {self.pid}: {self.writers}"
    remedy = "It hangs in the kernel until its storage answers: bring that back, or restart this host. Then ask again"


class ChangeEnded(StorageError):
    pool_id: str
    change: str
    reason: str
    msg = "{self.change} of pool {self.pool_id} was cut off: {self.reason}"
    remedy = "Ask again: what was done of it stays, the rest is done then"


class ChangeUnderWay(StorageError):
    """Neither done nor undone yet."""

    what: str
    seconds: float
    state: str
    msg = "{self.what} has not ended within {self.seconds:g} s, and goes on: {self.state}"
    remedy = "Its end is told in the log and by the event |storage|change_ended|; what it works on is locked until then"


class SpmEnded(StorageError):
    pool_id: str
    reason: str
    msg = "The SPM role of pool {self.pool_id} ended on this host: {self.reason}"


class DomainVersionTooNew(StorageError):
    domain_id: str
    version: int
    wanted: int
    msg = "Domain {self.domain_id} has version {self.version}, newer than the wanted {self.wanted}"


class UpgradeRunning(StorageError):
    pool_id: str
    msg = "Domains of pool {self.pool_id} are being brought to another version already"
    remedy = "Ask again when the log says that they are"


class MasterClassRefused(StorageError):
    domain_id: str
    domain_class: str
    msg = "Domain {self.domain_id} is of class {self.domain_class}: only a data domain can be a master"


class IsoMaster(MasterClassRefused):
    """317 in the field."""


class BackupMaster(MasterClassRefused):
    """319 in the field."""


class MixedDomainVersions(StorageError):
    domain_id: str
    version: int
    master_version: int
    msg = "Domain {self.domain_id} has version {self.version}, its pool's master has {self.master_version}"


class DomainNotInPool(StorageError):
    domain_id: str
    pool_id: str
    msg = "Domain {self.domain_id} is not attached to pool {self.pool_id}"


class DomainAttached(StorageError):
    domain_id: str
    pool_id: str
    msg = "Domain {self.domain_id} is attached to pool {self.pool_id}"


class DomainNotActive(StorageError):
    domain_id: str
    msg = "Domain {self.domain_id} is not active: activate it first"


class DomainIsMaster(StorageError):
    domain_id: str
    msg = "Domain {self.domain_id} is the master domain of its pool: the role must move first"


class DomainsChanged(StorageError):
    pool_id: str
    msg = "The domains of pool {self.pool_id} changed just now"
    remedy = "Ask again"


class DomainActive(StorageError):
    domain_id: str
    msg = "Domain {self.domain_id} is active: deactivate it first"


class DomainInConnectedPool(StorageError):
    domain_id: str
    pool_id: str
    msg = "Domain {self.domain_id} belongs to pool {self.pool_id}, which is connected on this host: detach it first"


class DomainHasPool(StorageError):
    domain_id: str
    pool_id: str
    msg = "Domain {self.domain_id} belongs to pool {self.pool_id}: detach it first"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Wire numbers of storage's errors.

On the SPM's channel most numbers make an engine move the SPM to another host. So what a caller can
put right has a number that engines know as a plain failure (wire.md 7, column K), unless the field gives another one.
"""

from __future__ import annotations

from storage import catalogue, conversion, errors, images, locks
from storage.servers import errors as servers
from storage.spm import errors as pool
from storage.spm import volume_leases, volumes
from storage.tasks import record, runner, states
from vdsm.common.errors import AgentError

CODES: dict[type[AgentError], int] = {
    errors.StorageError: 200,
    # what stands on storage
    errors.InvalidContent: 753,
    errors.ChecksumMismatch: 752,
    errors.ContentTooLong: 756,
    errors.MetadataCleared: 757,
    errors.UnsupportedVersion: 394,
    conversion.ConversionUnsupported: 394,
    errors.UnsupportedAlignment: 1000,
    errors.DescriptionTooLong: 1000,
    errors.DomainNameTooLong: 387,
    errors.PoolNameTooLong: 327,
    errors.NameNotAscii: 4900,
    errors.BlockSizeUnsupported: 348,
    errors.DirectIoUnsupported: 399,
    errors.AccessLost: 469,
    errors.NotWritable: 385,
    errors.StorageReplaced: 384,
    # domains
    errors.DomainExists: 365,
    errors.DomainNotFound: 358,
    errors.DomainUnsupported: 371,
    errors.DomainMismatch: 371,
    errors.ImagesUnsupported: 329,
    errors.FormatCutOff: 352,
    errors.DomainUsedByHosts: 352,
    errors.NotConnected: 360,
    servers.RemotePathInvalid: 390,
    errors.DomainClassUnknown: 386,
    catalogue.VersionUnsupported: 394,
    # images and volumes
    errors.ImageNotFound: 268,
    errors.VolumeNotFound: 201,
    errors.VolumeExists: 212,
    errors.VolumeHasChildren: 204,
    errors.VolumeShared: 223,
    errors.VolumesInUse: 203,
    errors.BeingRemoved: 203,
    errors.VolumeNotShared: 214,
    errors.DiscardUnsupported: 349,
    errors.InvalidVolume: 202,
    errors.InvalidChain: 262,
    errors.GenerationMismatch: 911,
    errors.UnsafeImage: 484,
    errors.NotTheParent: 2009,
    images.VolumeIllegal: 227,
    volume_leases.VolumeLeased: 203,
    volume_leases.VolumeLeaseUnknown: 704,
    volumes.VolumeShrinkRefused: 232,
    volumes.VolumeNotExtendable: 213,
    # leases
    errors.LeaseHeld: 651,
    errors.LeaseNotFormatted: 701,
    errors.HostIdNotAcquired: 661,
    errors.HostIdInUse: 662,
    errors.SanlockUnavailable: 704,
    errors.NoSuchLease: 936,
    errors.NoSpaceForLease: 397,
    errors.NoSpaceLeft: 397,
    # pool and SPM
    pool.PoolUnknown: 309,
    pool.AnotherPoolConnected: 323,
    pool.PoolConnected: 325,
    pool.PoolHostIdDiffers: 325,
    pool.MapMissing: 325,
    pool.NotThisHostId: 700,
    pool.MasterNotFound: 304,
    pool.WrongMaster: 324,
    pool.NotSpm: 654,
    pool.SpmEnded: 654,
    pool.SpmHangs: 653,
    pool.IsSpm: 656,
    pool.SpmBusy: 2005,
    pool.SpmStartFailed: 650,
    pool.SpmLeaseNotAcquired: 651,
    pool.WritersLeft: 651,
    pool.ChangeEnded: 350,
    pool.ChangeUnderWay: 350,
    pool.DomainVersionTooNew: 395,
    pool.MixedDomainVersions: 398,
    pool.UpgradeRunning: 396,
    pool.IsoMaster: 317,
    pool.BackupMaster: 319,
    pool.DomainNotInPool: 353,
    pool.DomainAttached: 391,
    pool.DomainNotActive: 369,
    pool.DomainIsMaster: 383,
    pool.DomainActive: 347,
    pool.DomainsChanged: 40,
    pool.DomainInConnectedPool: 392,
    pool.DomainHasPool: 380,
    # tasks and locks
    locks.LockTimeout: 851,
    locks.LockModesConflict: 855,
    runner.StepInvalid: 430,
    record.TaskRecordInvalid: 408,
    runner.UnknownTask: 401,
    # not 403: an engine that clears too early tries again later on 410 alone
    runner.TaskNotFinished: 410,
    runner.TaskNotStoppable: 410,
    runner.TaskAborted: 411,
    runner.TooManyTasks: 405,
    states.TaskTransitionIllegal: 441,
    # servers
    servers.KindUnsupported: 372,
    servers.ConnectionRefused: 453,
    servers.OptionRefused: 453,
    servers.MountFailed: 477,
    servers.AccessRefused: 469,
    servers.DirectIoRefused: 399,
    servers.ConnectionUsed: 452,
}

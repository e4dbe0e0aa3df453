# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of storage. Their wire numbers are in vdsm.api.codes.storage."""

from __future__ import annotations

import errno
import os
from typing import Self

from storage import holders
from vdsm.common.errors import AgentError


class StorageError(AgentError):
    msg = "Storage failed"


# What stands on the disk


class InvalidContent(StorageError):
    """Bytes on shared storage that are not what the format says."""

    where: str
    reason: str
    msg = "{self.where} is not valid: {self.reason}"


class ChecksumMismatch(StorageError):
    where: str
    expected: str
    found: str
    msg = "{self.where} is damaged: its content has the checksum {self.found}, the stored one is {self.expected}"
    remedy = "Restore the file from a backup; the domain is not used until then"


class ContentTooLong(StorageError):
    where: str
    size_bytes: int
    limit_bytes: int
    msg = "{self.where} would take {self.size_bytes} bytes, the limit is {self.limit_bytes}"


class MetadataCleared(StorageError):
    where: str
    msg = "{self.where} was cleared: its volume was removed"


DAMAGED = (InvalidContent, ContentTooLong, MetadataCleared)
"""The content was read and is wrong. Every other error of a read says nothing about the content."""


class UnsupportedVersion(StorageError):
    where: str
    version: str
    msg = "{self.where} has format version {self.version}, which is not supported"


class UnsupportedAlignment(StorageError):
    block_size: int
    max_hosts: int
    msg = "No lease alignment for block size {self.block_size} and {self.max_hosts} hosts"


class DescriptionTooLong(StorageError):
    characters: int
    utf8_bytes: int
    max_characters: int
    max_bytes: int
    msg = (
        "Parameter 'description' is invalid: it has {self.characters} characters and {self.utf8_bytes} bytes, "
        "the limits are {self.max_characters} and {self.max_bytes}"
    )


class DomainNameTooLong(DescriptionTooLong):
    msg = (
        "The name of a domain has {self.characters} characters and {self.utf8_bytes} bytes, "
        "the limits are {self.max_characters} and {self.max_bytes}"
    )


class PoolNameTooLong(DescriptionTooLong):
    msg = (
        "The name of a pool has {self.characters} characters and {self.utf8_bytes} bytes, "
        "the limits are {self.max_characters} and {self.max_bytes}"
    )


class NameNotAscii(StorageError):
    name: str
    msg = "Parameter 'name' is invalid: domains of this format version have ASCII names, got {self.name!r}"


# File I/O


class IoFailed(StorageError):
    """A file operation that the kernel refused; ``error`` is the errno's name."""

    operation: str
    path: str
    error: str
    text: str
    msg = "{self.operation} of {self.path} failed: {self.text} ({self.error})"

    @classmethod
    def of(cls, operation: str, path: str, error: OSError) -> Self:
        """Of this process's own file operation."""
        number = error.errno or errno.EIO
        return cls(operation, path, errno.errorcode.get(number, str(number)), os.strerror(number))


class NoSpaceLeft(IoFailed):
    """The file system is full, or a quota is used up."""

    remedy = "Make room in the storage domain, or extend the file system that it lies on"


class StorageNotResponding(StorageError):
    """No answer within the deadline: the mount may hang."""

    path: str
    operation: str
    seconds: float
    msg = "Storage at {self.path} did not answer: {self.operation} took more than {self.seconds:.3g} s"


class AccessLost(StorageError):
    domain_id: str
    reason: str
    msg = "The storage of domain {self.domain_id} refuses this host: {self.reason}"
    remedy = "Look at the server's exports and at the owner (36:36) and rights of the domain's folder"


class NotWritable(StorageError):
    domain_id: str
    reason: str
    msg = "The storage of domain {self.domain_id} can be read and not written: {self.reason}"
    remedy = "Export and mount it for reading and writing, to user and group 36"


class StorageReplaced(StorageError):
    domain_id: str
    reason: str
    msg = "What domain {self.domain_id} lies on is not there as it was mounted: {self.reason}"
    remedy = (
        "The server withdrew the export from this host, made its file system anew or exports another: "
        "put back what was there, or connect it again"
    )


class DirectIoUnsupported(StorageError):
    path: str
    msg = "The file system at {self.path} refuses direct I/O, which leases need"
    remedy = "Use a file system that supports O_DIRECT"


class BlockSizeUnsupported(StorageError):
    path: str
    wanted: int
    found: int
    msg = "Block size {self.wanted} does not fit the storage at {self.path}: it works with {self.found}"


# Domains


class NotConnected(StorageError):
    spec: str
    msg = "Storage {self.spec!r} is not connected on this host"
    remedy = "Call StoragePool.connectStorageServer first"


class DomainExists(StorageError):
    domain_id: str
    path: str
    msg = "A storage domain exists at {self.path}: {self.domain_id} cannot be created there"


class DomainClassUnknown(StorageError):
    number: int
    msg = "Parameter 'domainClass' is invalid: expected 1 (data), 2 (ISO) or 3 (export), got {self.number}"


class DomainNotFound(StorageError):
    domain_id: str
    unless: str = ""
    """Where it may be all the same, as the end of the sentence."""
    msg = "Storage domain {self.domain_id} is not on any connected storage{self.unless}"


class FormatCutOff(StorageError):
    domain_id: str
    reason: str
    msg = "Storage domain {self.domain_id} is removed in part: {self.reason}"
    remedy = "Format it again: what is left of it goes then"


class DomainUsedByHosts(StorageError):
    domain_id: str
    hosts: str
    msg = "Storage domain {self.domain_id} is in use by {self.hosts}, alive in its lockspace"
    remedy = "Deactivate the domain there, or stop that host, and format it then"


class DomainUnsupported(StorageError):
    domain_id: str
    reason: str
    msg = "Storage domain {self.domain_id} cannot be used: {self.reason}"


class ImagesUnsupported(StorageError):
    domain_id: str
    msg = "Storage domain {self.domain_id} holds ISO files: it has no images and volumes"


class DomainMismatch(StorageError):
    path: str
    expected: str
    found: str
    msg = "Storage domain at {self.path} is {self.found}, expected {self.expected}"


# Images and volumes


class ImageNotFound(StorageError):
    image_id: str
    domain_id: str
    msg = "Image {self.image_id} does not exist in domain {self.domain_id}"


class VolumeNotFound(StorageError):
    volume_id: str
    domain_id: str
    msg = "Volume {self.volume_id} does not exist in domain {self.domain_id}"


class VolumeExists(StorageError):
    volume_id: str
    domain_id: str
    msg = "Volume {self.volume_id} already exists in domain {self.domain_id}"


class VolumeHasChildren(StorageError):
    volume_id: str
    children: list[str]
    msg = "Volume {self.volume_id} has children: {self.children}"


class VolumeShared(StorageError):
    volume_id: str
    msg = "Volume {self.volume_id} is shared: it cannot be changed or removed alone"


class VolumeNotShared(StorageError):
    volume_id: str
    msg = "Volume {self.volume_id} is not shared: another image cannot be based on it"


class DiscardUnsupported(StorageError):
    domain_id: str
    msg = "Parameter 'discard' is invalid: domain {self.domain_id} is on files, which cannot discard (got true)"


class VolumesInUse(StorageError):
    domain_id: str
    what: str
    users: list[str]
    msg = "{self.what} of domain {self.domain_id} is in use on this host by {self.named}"
    remedy = "Stop the VM, or end what prepared the image with Image.teardown"

    @property
    def named(self) -> str:
        return ", ".join(map(holders.shown, self.users))


class BeingRemoved(StorageError):
    domain_id: str
    what: str
    msg = "{self.what} of domain {self.domain_id} is being removed"


class InvalidVolume(StorageError):
    """A wanted volume that breaks a rule of the format."""

    volume_id: str
    reason: str
    msg = "Volume {self.volume_id} cannot be made: {self.reason}"


class GenerationMismatch(StorageError):
    volume_id: str
    found: int
    expected: int
    msg = "Volume {self.volume_id} has generation {self.found}, not {self.expected}: another change of it came first"
    remedy = "Ask for the volume again and decide by what it is now"


class InvalidChain(StorageError):
    image_id: str
    reason: str
    msg = "The volume chain of image {self.image_id} is broken: {self.reason}"


class NotTheParent(StorageError):
    """Only a volume together with its parent can be looked at as a part of its chain."""

    base_id: str
    volume_id: str
    msg = "Parameter 'baseID' is invalid: volume {self.base_id} is not the parent of volume {self.volume_id}"


class UnsafeImage(StorageError):
    """An image that qemu would follow to places that its owner must not reach."""

    path: str
    reason: str
    msg = "Image {self.path} is refused: {self.reason}"
    remedy = "Reconcile the image's volume chain if a merge was cut off; remove the volume if it was uploaded"


# Leases


class LeaseError(StorageError):
    """sanlock (or the kernel) refused; ``code`` is its number."""

    operation: str
    lease: str
    code: int
    text: str
    msg = "{self.operation} of lease {self.lease} failed: {self.text} ({self.code})"


class LeaseHeld(StorageError):
    lease: str
    holder: str = "another host or process"
    msg = "Lease {self.lease} is held by {self.holder}"


class LeaseNotFormatted(StorageError):
    lease: str
    msg = "There is no lease at {self.lease}"


class HostIdNotAcquired(StorageError):
    domain_id: str
    host_id: int
    reason: str
    msg = "Host id {self.host_id} in domain {self.domain_id} was not acquired: {self.reason}"


class HostIdInUse(StorageError):
    domain_id: str
    host_id: int
    msg = "Host id {self.host_id} in domain {self.domain_id} is held by leases in use and was not released"


class SanlockUnavailable(StorageError):
    reason: str
    msg = "The lease service sanlock does not answer: {self.reason}"
    remedy = "Start sanlock; 'vdsm doctor' says what it needs"


# External leases


class NoSuchLease(StorageError):
    lease_id: str
    msg = "There is no lease {self.lease_id}"


class LeaseExists(StorageError):
    lease_id: str
    msg = "Lease {self.lease_id} already exists"


class NoSpaceForLease(StorageError):
    where: str
    msg = "No free record for another lease in {self.where}"


class LeaseIndexUpdating(StorageError):
    where: str
    msg = "The lease index {self.where} is being formatted or rebuilt"
    remedy = "Rebuild the leases of the domain"

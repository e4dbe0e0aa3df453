# SPDX-License-Identifier: GPL-2.0-or-later
"""A new file domain, and the end of one.

The metadata comes last: until then no search finds the domain, and making it again begins anew.
For removal the metadata goes first: it becomes a mark, by which a removal that was cut off is found and ended.
"""

from __future__ import annotations

import os
import time

from storage.errors import DirectIoUnsupported, DomainExists, DomainUnsupported, FormatCutOff, IoFailed, StorageError
from storage.file.files import IMAGES, METADATA, DomainFiles
from storage.file.io import FileIo
from storage.file.safelease import SafeLease
from storage.leases import Leases
from storage.new_domain import NewDomain
from storage.ondisk import domain_fields, xleases
from storage.ondisk.layout import (
    BLOCK_SIZE_4K,
    BLOCK_SIZE_512,
    BLOCK_SIZE_AUTO,
    ISO_IMAGE_ID,
    MAILBOX_FILE_SIZE,
    XLEASES_INDEX_SLOT,
    alignment,
    choose_block_size,
)
from storage.ondisk.values import DomainClass, DomainKind
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import is_uuid

FOLDERS_MADE = crash_point("domain.create.folders", "the domain's folders exist, its files do not")
FILES_MADE = crash_point("domain.create.files", "all files exist, leases are not written")
LEASES_WRITTEN = crash_point("domain.create.leases", "leases are written, the index of external leases is not")
INDEX_WRITTEN = crash_point("domain.create.index", "all is written but the metadata")
METADATA_WRITTEN = crash_point("domain.create.metadata", "the domain is there")

UNFINDABLE = crash_point("domain.format.renamed", "the domain is there no more, its files are")

FORMATTED = METADATA + ".formatted"
FILE_MODE = 0o660
FOLDER_MODE = 0o755
DOM_MD_MODE = 0o775


async def write_domain(wanted: NewDomain, mount: str, io: FileIo, leases: Leases, *, io_timeout_s: int) -> DomainFiles:
    """``mount``: ``<repository>/mnt/<transformed remote path>``.
    ``leases``: the edge for a domain of this kind that has them.

    Raises `InvalidParameter`, `DomainExists`, `BlockSizeUnsupported`, `DirectIoUnsupported`, `UnsupportedAlignment`,
    `DomainNameTooLong`, `NameNotAscii`, `IoFailed`.
    """
    if wanted.kind not in (DomainKind.LOCALFS, DomainKind.POSIXFS, DomainKind.NFS):
        raise DomainUnsupported(wanted.domain_id, f"domains of type {wanted.kind} cannot be made here")
    files, metadata = await _prepare(wanted, mount, io, leases, io_timeout_s)
    await _make_folders(files)
    FOLDERS_MADE.reach()
    await _make_files(files)
    FILES_MADE.reach()
    await files.leases.format_lockspace(files.lockspace)
    await files.leases.format_lease(files.sdm_lease)
    LEASES_WRITTEN.reach()
    if files.has_external_leases:
        await write_index(files)
    INDEX_WRITTEN.reach()
    await files.write_metadata(metadata)
    METADATA_WRITTEN.reach()
    return files


async def remove_domain(files: DomainFiles) -> None:
    """No host finds the domain from the first step on. Raises `FormatCutOff` after it: see `finish_removal`."""
    await files.io.rename(files.place(METADATA), files.place(FORMATTED))
    UNFINDABLE.reach()
    await finish_removal(files.domain_id, files.path, files.io)


async def is_half_removed(path: str, io: FileIo) -> bool:
    """A domain's folder that a removal was cut off in, told by its mark.

    The mark goes last: what has none is a rest only where there is nothing in it to lose.
    """
    dom_md = os.path.dirname(os.path.join(path, METADATA))
    if not await io.exists(path) or await io.exists(os.path.join(path, METADATA)):
        return False
    if await io.exists(os.path.join(path, FORMATTED)):
        return True
    names = await io.list_folder(path)
    return not names or (names == [os.path.basename(dom_md)] and not await io.list_folder(dom_md))


async def finish_removal(domain_id: str, path: str, io: FileIo) -> None:
    """Remove the rest of a domain. Raises `FormatCutOff`: to be done again."""
    marked, mark = os.path.split(os.path.join(path, FORMATTED))
    try:
        for folder, kept in ((path, os.path.basename(marked)), (marked, mark)):
            if await io.exists(folder):
                for name in await io.list_folder(folder):
                    if name != kept:
                        await io.discard(os.path.join(folder, name))
        await io.discard(path)
    except StorageError as e:
        raise FormatCutOff(domain_id, str(e)) from e


async def find_domains(mount_path: str, io: FileIo) -> list[str]:
    """Ids of the domains on a mount: folders named by a UUID that hold metadata."""
    found = []
    for name in await io.list_folder(mount_path):
        if is_uuid(name) and await io.exists(os.path.join(mount_path, name, METADATA)):
            found.append(name)
    return found


async def _prepare(
    wanted: NewDomain, mount: str, io: FileIo, leases: Leases, io_timeout_s: int
) -> tuple[DomainFiles, domain_fields.DomainMetadata]:
    """All that can be refused before anything is written."""
    _check_block_size(wanted)
    await _check_free(wanted.domain_id, mount, io)
    probed = await _probe(mount, io)
    block_size = choose_block_size(mount, wanted.block_size, probed)
    align = alignment(block_size, wanted.max_hosts)
    metadata = domain_fields.new_file_domain(
        domain_id=wanted.domain_id,
        kind=wanted.kind,
        version=wanted.version,
        description=wanted.description,
        remote_path=wanted.spec,
        block_size=block_size,
        alignment=align,
        domain_class=wanted.domain_class,
    )
    domain_fields.encode(metadata)
    files = DomainFiles(
        domain_id=wanted.domain_id,
        kind=wanted.kind,
        domain_class=wanted.domain_class,
        path=os.path.join(mount, wanted.domain_id),
        block_size=block_size,
        alignment=align,
        version=wanted.version,
        io_timeout_s=io_timeout_s,
        io=io,
        leases=leases if wanted.version.has_leases else SafeLease(io, io_timeout_s=io_timeout_s),
    )
    return files, metadata


def _check_block_size(wanted: NewDomain) -> None:
    """Raises `InvalidParameter` for what no storage of this kind may have, whatever it is made of."""
    any_size = wanted.kind is DomainKind.LOCALFS and wanted.version.states_geometry
    allowed = (BLOCK_SIZE_AUTO, BLOCK_SIZE_512, BLOCK_SIZE_4K) if any_size else (BLOCK_SIZE_512,)
    if wanted.block_size not in allowed:
        expected = f"{' or '.join(map(str, allowed))} for {wanted.kind} of version {int(wanted.version)}"
        raise InvalidParameter("blockSize", str(wanted.block_size), f"expected {expected}")


async def _probe(mount: str, io: FileIo) -> int:
    try:
        return await io.block_size(mount)
    except IoFailed as e:
        if e.error == "EINVAL":
            raise DirectIoUnsupported(mount) from e
        raise


async def _check_free(domain_id: str, mount: str, io: FileIo) -> None:
    """No other domain may be on the mount. What is left of our own earlier attempt may."""
    for name in await io.list_folder(mount):
        folder = os.path.join(mount, name)
        if not is_uuid(name):
            continue  # as lost+found, which we could not even look into
        if not await io.exists(os.path.join(folder, "dom_md")):
            continue
        if name != domain_id or await io.exists(os.path.join(folder, METADATA)):
            raise DomainExists(domain_id, folder)
        images = os.path.join(folder, IMAGES)
        if await io.exists(images) and await io.list_folder(images):
            raise DomainExists(domain_id, folder)


async def _make_folders(files: DomainFiles) -> None:
    await files.io.remove_tree(files.path)  # `_check_free` has seen that it is nothing, or half a domain
    try:
        await files.io.make_folder(files.path, mode=FOLDER_MODE)
    except IoFailed as e:
        if e.error == "EEXIST":
            raise DomainExists(files.domain_id, files.path) from e
        raise
    await files.io.make_folder(files.place("dom_md"), mode=DOM_MD_MODE)
    await files.io.make_folder(files.place(IMAGES), mode=FOLDER_MODE)
    if files.domain_class is DomainClass.ISO:
        await files.io.make_folder(files.image(ISO_IMAGE_ID), mode=FOLDER_MODE)


async def _make_files(files: DomainFiles) -> None:
    sizes = {"ids": 0, "leases": 0, "inbox": MAILBOX_FILE_SIZE, "outbox": MAILBOX_FILE_SIZE}
    if files.has_external_leases:
        sizes["xleases"] = 0
    for name, size in sizes.items():
        await files.io.create(files.place("dom_md", name), size=size, mode=FILE_MODE)


async def write_index(files: DomainFiles) -> None:
    """Format the index of external leases: marked as being updated until it is complete."""
    path = files.place("dom_md/xleases")
    start = XLEASES_INDEX_SLOT * files.alignment
    now = int(time.time())
    await files.io.truncate(path, start + xleases.INDEX_SIZE)
    await files.io.write_direct(path, xleases.empty_index(files.domain_id, now, updating=True), offset=start)
    complete = xleases.empty_index(files.domain_id, now, updating=False)
    await files.io.write_direct(path, complete[: files.block_size], offset=start)

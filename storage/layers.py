# SPDX-License-Identifier: GPL-2.0-or-later
"""What the layers of a volume chain say about each other, looked at before anything opens them.

QEMU follows what stands in a qcow2 header: to any file of the host, and with a format that it guesses when none
is stated. A guest can write such a header into a raw disk, an upload brings its own. So for each layer the
header, the metadata and the chain must say the same:

- a raw layer is the base of its chain; it is opened as raw whatever it holds;
- a qcow2 layer has a qcow2 header; its backing file is the bare id of the parent in the metadata, which only the
  image's own folder resolves; its backing format is the parent's in the metadata;
- no layer keeps its data in another file, is encrypted, or needs features that are not known here;
- every layer is a plain payload: a link would lead out of the folder (`storage.domain.Chains` sees to that).

`node` states such a chain to QEMU whole, so that it guesses nothing and follows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from storage.attached import Payload
from storage.errors import InvalidContent, UnsafeImage
from storage.ondisk import qcow2
from storage.ondisk.values import Legality, VolumeFormat, VolumeRole
from storage.ondisk.volume_metadata import VolumeMetadata

Chain = Sequence[tuple[str, VolumeMetadata]]
"""From the base up: volume ids and their metadata."""


@dataclass(frozen=True)
class Layer:
    volume_id: str
    path: str
    driver: str
    metadata: VolumeMetadata
    virtual_size: int
    """What a guest sees, from the header of qcow2 and the payload's size of raw."""


def examine(payloads: Mapping[str, Payload], chain: Chain) -> list[Layer]:
    """All layers, from the base up. Raises `UnsafeImage` naming the layer, the field and what is expected."""
    parents = [None, *chain[:-1]]
    return [_examine(payloads[v], v, m, parent) for (v, m), parent in zip(chain, parents, strict=True)]


def examine_alone(payload: Payload, volume_id: str, metadata: VolumeMetadata) -> Layer:
    """One volume that is opened without what is below it: that is not looked at."""
    if metadata.format is VolumeFormat.RAW:
        return Layer(volume_id, payload.path, payload.driver, metadata, payload.size)
    header = _header(payload)
    check_features(payload.path, header)
    return Layer(volume_id, payload.path, payload.driver, metadata, header.virtual_size)


def with_true_capacity(layer: Layer) -> VolumeMetadata:
    """The metadata with the image's own size where a resize that was cut off left a capacity of 0, or below it.

    Not of what is still being written to, whose header is not ours yet, nor of what is shared. A raw file shorter
    than its capacity is normal (storage.md 16.10).
    """
    metadata = layer.metadata
    changes = metadata.role is not VolumeRole.SHARED and metadata.legality is Legality.LEGAL
    return replace(metadata, capacity=max(metadata.capacity, layer.virtual_size)) if changes else metadata


def _examine(
    payload: Payload, volume_id: str, metadata: VolumeMetadata, parent: tuple[str, VolumeMetadata] | None
) -> Layer:
    path = payload.path
    if metadata.format is VolumeFormat.RAW:
        if parent is not None:
            raise UnsafeImage(path, f"it is raw, but its metadata says that it is based on {parent[0]}")
        return Layer(volume_id, path, payload.driver, metadata, payload.size)
    header = _header(payload)
    check_features(path, header)
    check_backing(path, header, parent)
    return Layer(volume_id, path, payload.driver, metadata, header.virtual_size)


def _header(payload: Payload) -> qcow2.Header:
    try:
        return qcow2.decode(payload.head, payload.path)
    except InvalidContent as e:
        raise UnsafeImage(payload.path, f"its metadata says qcow2, but {e.reason}") from e


def check_features(path: str, header: qcow2.Header) -> None:
    """Raises `UnsafeImage`."""
    if header.has_data_file:
        raise UnsafeImage(path, "it keeps its data in another file")
    if header.unknown_features:
        raise UnsafeImage(path, f"it needs features that are not known here: {header.unknown_features:#x}")
    if header.encryption:
        raise UnsafeImage(path, f"it is encrypted by method {header.encryption}")


def check_backing(path: str, header: qcow2.Header, parent: tuple[str, VolumeMetadata] | None) -> None:
    """Raises `UnsafeImage`. A format may be missing where the parent is qcow2: its header was looked at as such."""
    expected = parent[0] if parent is not None else ""
    if header.backing_file != expected:
        found = header.backing_file[:200]
        raise UnsafeImage(path, f"its header names the backing file {found!r}, its metadata {expected!r}")
    if parent is None:
        return
    wanted = parent[1].format
    stated = header.backing_format or (wanted.qemu if wanted is VolumeFormat.COW else "")
    if stated != wanted.qemu:
        raise UnsafeImage(
            path, f"its header says that its backing file is {stated[:40] or 'of any format'}, it is {wanted.qemu}"
        )


def node(layers: Sequence[Layer]) -> dict[str, Any]:
    """The chain from the base up as QEMU's block options: all formats stated, nothing below the first layer."""
    below: dict[str, Any] | None = None
    for layer in layers:
        options: dict[str, Any] = {
            "driver": layer.metadata.format.qemu,
            "file": {"driver": layer.driver, "filename": layer.path},
        }
        if layer.metadata.format is VolumeFormat.COW:
            options["backing"] = below
        below = options
    assert below is not None
    return below

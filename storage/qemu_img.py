# SPDX-License-Identifier: GPL-2.0-or-later
"""qemu-img, as it may be run on images that a guest wrote.

- The format is always stated: a raw image whose guest wrote a qcow2 header is still raw. Of a chain each layer is
  stated (`storage.layers.node`), so no header is followed.
- CPU time and address space are limited (prlimit): a hostile header must not cost the host more.
- ``mount`` is what hangs as one with the image (`vdsm.common.hanging`): no more is begun on a dead one.
- What writes keeps copies of its caller's leases (``held``) until it has ended: qemu-img closes no descriptor that it
  inherits.
- An image that names a data file of its own is refused: qemu would follow it anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.errors import InvalidContent, StorageNotResponding, UnsafeImage
from storage.layers import Layer, node
from storage.ondisk.values import VolumeFormat
from vdsm.common import commands, hanging
from vdsm.common.errors import CommandFailed
from vdsm.common.units import GiB

CPU_LIMIT_S = 30
MEMORY_LIMIT = 1 * GiB
SHORT_S = 60.0
MAX_OUTPUT = 4 << 20


@dataclass(frozen=True)
class ImageInfo:
    path: str
    format: str
    virtual_size: int
    actual_size: int
    backing_file: str | None
    backing_format: str | None
    compat: str | None
    cluster_size: int | None


@dataclass(frozen=True)
class Measure:
    required: int
    fully_allocated: int


@dataclass(frozen=True)
class CheckResult:
    image_end_offset: int | None
    leaks: int
    corruptions: int


async def info(path: str, image_format: VolumeFormat, *, mount: str, timeout_s: float = SHORT_S) -> ImageInfo:
    """Of one image, its backing files not opened. Raises `UnsafeImage`, `InvalidContent`."""
    out = await _run(["info", "--output", "json", "-U", "-f", image_format.qemu, path], timeout_s, mount)
    return _image_info(_document(out, path), path)


async def create(
    path: str,
    size: int,
    image_format: VolumeFormat,
    *,
    mount: str,
    compat: str = "1.1",
    backing: tuple[str, VolumeFormat] | None = None,
    held: Sequence[int] = (),
    timeout_s: float = SHORT_S,
) -> None:
    """Write a new image into an existing file. ``backing`` is a bare file name beside the image and its format."""
    argv = ["create", "-q", "-f", image_format.qemu]
    if image_format is VolumeFormat.COW:
        argv += ["-o", f"compat={compat}"]
    if backing is not None:
        name, backing_format = backing
        argv += ["-u", "-b", name, "-F", backing_format.qemu]
    await _run([*argv, path, str(size)], timeout_s, mount, held)


async def measure(chain: Sequence[Layer], target: VolumeFormat, *, mount: str, timeout_s: float = SHORT_S) -> Measure:
    """Bytes that a copy of these layers, from the base up, would take. Nothing else is opened."""
    path = chain[-1].path
    image = "json:" + json.dumps(node(chain))
    argv = ["measure", "--output", "json", "-U", "-O", target.qemu, image]
    document = _document(await _run(argv, timeout_s, mount), path)
    return Measure(int(document["required"]), int(document["fully-allocated"]))


async def check(path: str, image_format: VolumeFormat, *, mount: str, timeout_s: float) -> CheckResult:
    """Read-only check. Leaks alone are no error; corruptions are told in the result."""
    argv = ["check", "--output", "json", "-U", "-f", image_format.qemu, path]
    try:
        out = await _run(argv, timeout_s, mount)
    except CommandFailed as e:
        if e.code not in (2, 3):  # 2: corruptions, 3: leaks
            raise
        return CheckResult(None, int(e.code == 3), int(e.code == 2))
    document = _document(out, path)
    end = document.get("image-end-offset")
    return CheckResult(
        int(end) if end is not None else None, int(document.get("leaks", 0)), int(document.get("corruptions", 0))
    )


async def _run(argv: Sequence[str], timeout_s: float, mount: str, held: Sequence[int] = ()) -> bytes:
    limits = ["prlimit", f"--cpu={CPU_LIMIT_S}", f"--as={MEMORY_LIMIT}", "--core=0", "--", "qemu-img"]
    try:
        done = await commands.run([*limits, *argv], timeout_s=timeout_s, max_output=MAX_OUTPUT, place=mount, held=held)
    except hanging.PlaceHangs as e:
        raise StorageNotResponding(mount, f"qemu-img (refused: {e.count} processes hang)", 0) from None
    return done.out


def _document(out: bytes, path: str) -> dict[str, Any]:
    try:
        document = json.loads(out)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise InvalidContent(path, "qemu-img's answer is no JSON object")
    return document


def _image_info(document: dict[str, Any], path: str) -> ImageInfo:
    specific = document.get("format-specific", {}).get("data", {})
    if "data-file" in specific or specific.get("data-file-raw"):
        raise UnsafeImage(path, "it keeps its data in another file")
    backing = document.get("backing-filename")
    return ImageInfo(
        path=str(document.get("filename", path)),
        format=str(document["format"]),
        virtual_size=int(document["virtual-size"]),
        actual_size=int(document.get("actual-size", 0)),
        backing_file=None if backing is None else str(backing),
        backing_format=document.get("backing-filename-format"),
        compat=specific.get("compat"),
        cluster_size=document.get("cluster-size"),
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of an SPM, each from where it begins: tests let it die in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from spm_verbs import SpmVerbs


@dataclass
class Flow:
    """``before`` brings the domain to where ``change`` begins, whose task's id it answers."""

    before: Callable[[SpmVerbs, list[str]], Awaitable[object]]
    change: Callable[[SpmVerbs, list[str]], Awaitable[object]]


async def _nothing(_spm: SpmVerbs, _ids: list[str]) -> None:
    return


async def _base(spm: SpmVerbs, i: list[str]) -> None:
    await spm.create(i[0], i[1], format="RAW")


async def _two(spm: SpmVerbs, i: list[str]) -> None:
    await _base(spm, i)
    await spm.create(i[0], i[2], i[1])


async def _clone(spm: SpmVerbs, i: list[str]) -> None:
    await _base(spm, i)
    await spm.create(i[3], i[2], i[1], i[0])


def extend(spm: SpmVerbs, image: str, volume: str) -> Awaitable[Any]:
    params = {"domain_id": spm.domain_id, "image_id": image, "volume_id": volume, "size": 2 << 20}
    return spm.serve("volume.extend_size", params)


def _delete(spm: SpmVerbs, image: str, *volumes: str) -> Awaitable[Any]:
    params = {"domain_id": spm.domain_id, "image_id": image, "volume_ids": list(volumes), "force": False}
    return spm.serve("volume.delete", params)


def _delete_image(spm: SpmVerbs, i: list[str]) -> Awaitable[Any]:
    return spm.serve("image.delete", {"domain_id": spm.domain_id, "image_id": i[0]})


FLOWS = {
    "new image": Flow(_nothing, lambda spm, i: spm.begin(i[0], i[1])),
    "child": Flow(_base, lambda spm, i: spm.begin(i[0], i[2], i[1])),
    "second child": Flow(_two, lambda spm, i: spm.begin(i[0], i[3], i[1])),
    "clone": Flow(_base, lambda spm, i: spm.begin(i[3], i[2], i[1], i[0])),
    "second clone": Flow(_clone, lambda spm, i: spm.begin(i[4], i[5], i[1], i[0])),
    "delete a leaf": Flow(_two, lambda spm, i: _delete(spm, i[0], i[2])),
    "delete both": Flow(_two, lambda spm, i: _delete(spm, i[0], i[2], i[1])),
    "delete a clone's leaf": Flow(_clone, lambda spm, i: _delete(spm, i[3], i[2])),
    "delete an image": Flow(
        _two, lambda spm, i: spm.serve("image.delete", {"domain_id": spm.domain_id, "image_id": i[0]})
    ),
    "extend": Flow(_base, lambda spm, i: extend(spm, i[0], i[1])),
}

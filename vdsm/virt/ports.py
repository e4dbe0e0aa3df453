# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM needs of its neighbours, no more: storage for images, hooks, and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class VolumePath(Protocol):
    @property
    def domain_id(self) -> str: ...
    @property
    def image_id(self) -> str: ...
    @property
    def volume_id(self) -> str: ...
    @property
    def path(self) -> str: ...


class Prepared(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def format(self) -> str: ...


class Images(Protocol):
    """The part of `storage.service.Storage` that VMs use."""

    async def prepare_image(
        self, pool_id: str, domain_id: str, image_id: str, volume_id: str, *, consumer: str
    ) -> Prepared:
        """``consumer`` names the user: ``vm:<id>``."""

    async def teardown_image(self, pool_id: str, domain_id: str, image_id: str, *, consumer: str) -> None:
        """Undo the preparation for this user; done already is fine."""

    async def resume_prepared(
        self, images: Sequence[tuple[str, str, str, str]], *, consumer: str
    ) -> list[tuple[str, str, str, str]]:
        """After a restart: these (pool, domain, image, volume) are in use by running VMs, from memory and this host's
        records alone. Those that were not on record as prepared."""


@dataclass(frozen=True)
class HookVm:
    """The VM that a hook runs for, as the hooks' own protocol wants it."""

    vm_id: str
    custom: Mapping[str, str]


class Hooks(Protocol):
    """The part of `vdsm.hooking.service.Hooks` that VMs use."""

    async def run_xml(self, point: str, xml: str | None, *, vm: Any = None, env: Mapping[str, str] = ...) -> str: ...

    async def run_empty(self, point: str, *, vm: Any = None, env: Mapping[str, str] = ...) -> None: ...


class Publisher(Protocol):
    def publish(self, component: str, operation: str, unique_id: str, params: Mapping[str, Any]) -> None: ...

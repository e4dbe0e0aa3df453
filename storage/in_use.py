# SPDX-License-Identifier: GPL-2.0-or-later
"""Who uses which volumes on this host, and which of them are being removed: one never meets the other.

A user is a name (`storage.holders`). What each uses is written under ``/run/vdsm/prepared``, one file for each image:
before the image can be used and until it no longer can, so a restarted agent knows it; it vanishes at boot, as the
users do.

Who prepares an image and who changes it hold its lock, so they never meet; but a volume of one image, a template, is
used by others. So a removal is announced with the volumes that go. It is refused when one of them is in use; while it
lasts, nobody begins to use them. Both are decided without waiting, so neither can slip in between. A record that
cannot be read counts as a user: what is not known is not free.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from storage import holders
from storage.errors import BeingRemoved, IoFailed, VolumesInUse
from vdsm.common.atomic import remove_durably, write_atomic

log = logging.getLogger("vdsm.storage.images")

UNREADABLE = "a user whose record cannot be read"

Users = Mapping[str, frozenset[str]]
"""User to the ids of the volumes that it uses; none when it is not known which: then all of the image."""

Image = tuple[str, str]


class InUse:
    def __init__(self, records: str) -> None:
        self._records = records
        self._removals: list[tuple[str, frozenset[str]]] = []

    # Using

    def users(self, domain_id: str, image_id: str) -> Users:
        path = self._path(domain_id, image_id)
        try:
            with open(path, "rb") as f:
                read = json.loads(f.read())
            return _by_todays_names({str(user): frozenset(map(str, volumes)) for user, volumes in read.items()})
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as e:
            log.error("%s gives no list of users, so the image counts as used until the host restarts: %s", path, e)
            return {UNREADABLE: frozenset()}

    def images(self) -> list[Image]:
        """(domain, image) of every record."""
        with contextlib.suppress(FileNotFoundError):
            names = [name.partition("_") for name in os.listdir(self._records) if not name.startswith(".")]
            return sorted((domain_id, image_id) for domain_id, _, image_id in names)
        return []

    def add(self, domain_id: str, image_id: str, user: str, volumes: Iterable[str]) -> None:
        """On record from now on, beside what this user had of the image. Raises `BeingRemoved`, `IoFailed`."""
        used = frozenset(volumes)
        self._refuse_removed(domain_id, used)
        users = self.users(domain_id, image_id)
        self._record(domain_id, image_id, {**users, user: users.get(user, frozenset()) | used})

    def restore(self, domain_id: str, image_id: str, users: Users) -> None:
        """Back to what `users` said: an addition that led to nothing."""
        self._record(domain_id, image_id, users)

    def without(self, domain_id: str, image_id: str, user: str) -> Users:
        """The users that stay when this one goes."""
        return {known: volumes for known, volumes in self.users(domain_id, image_id).items() if known != user}

    # Removing

    @contextmanager
    def removing(self, domain_id: str, image_id: str, volumes: Iterable[str]) -> Iterator[None]:
        """While these volumes, which belong to this image, are removed. Raises `VolumesInUse`."""
        gone = frozenset(volumes)
        users: set[str] = set()
        for used_domain, used_image in self.images():
            if used_domain == domain_id:
                users |= {
                    user
                    for user, used in self.users(domain_id, used_image).items()
                    if used & gone or (not used and used_image == image_id)
                }
        if users:
            raise VolumesInUse(domain_id, f"Image {image_id}", sorted(users))
        removal = (domain_id, gone)
        self._removals.append(removal)
        try:
            yield
        finally:
            self._removals.remove(removal)

    def check_domain(self, domain_id: str) -> None:
        """Raises `VolumesInUse`, for the first image in use."""
        for used_domain, image_id in self.images():
            if used_domain == domain_id and (users := self.users(domain_id, image_id)):
                raise VolumesInUse(domain_id, f"Image {image_id}", sorted(users))

    def _refuse_removed(self, domain_id: str, used: frozenset[str]) -> None:
        for removed_domain, gone in self._removals:
            if removed_domain == domain_id and gone & used:
                raise BeingRemoved(domain_id, f"Volume {min(gone & used)}")

    # Records

    def _record(self, domain_id: str, image_id: str, users: Users) -> None:
        path = self._path(domain_id, image_id)
        if not users:
            remove_durably(path)
            return
        data = json.dumps({user: sorted(volumes) for user, volumes in sorted(users.items())}).encode()
        try:
            os.makedirs(self._records, mode=0o755, exist_ok=True)
            write_atomic(path, data)
        except OSError as e:
            raise IoFailed.of("write", path, e) from e

    def _path(self, domain_id: str, image_id: str) -> str:
        return os.path.join(self._records, f"{domain_id}_{image_id}")


def _by_todays_names(users: Users) -> Users:
    """An agent that took over another's records may have added its own user beside it."""
    found: dict[str, frozenset[str]] = {}
    for written, volumes in users.items():
        user = holders.read(written)
        known = found.get(user)
        if known is not None:
            found[user] = known | volumes if known and volumes else frozenset()  # none: all of the image
        else:
            found[user] = volumes
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON that was encoded before anybody asks for it, so that many readers cost one encoding.

There are two forms of it: in full, and as those below admin may see it (`vdsm.common.masking`). What has nothing to
hide has one, and that it has nothing is found out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, json

from vdsm.common import masking


class Encoded(Struct, frozen=True, gc=False):
    full: bytes
    masked: bytes


def encode(value: Any) -> Encoded:
    """Raises TypeError or ValueError when ``value`` is no JSON."""
    full = json.encode(value)
    return Encoded(full, json.encode(masking.hide_in(json.decode(full))) if masking.is_suspect(full) else full)


def merge(first: Encoded, second: Encoded) -> Encoded:
    """One object with the members of both, of which neither is empty."""
    full = _merged(first.full, second.full)
    return Encoded(full, full if _same((first, second)) else _merged(first.masked, second.masked))


def as_list(members: Sequence[Encoded]) -> Encoded:
    full = _listed([member.full for member in members])
    return Encoded(full, full if _same(members) else _listed([member.masked for member in members]))


def _same(members: Sequence[Encoded]) -> bool:
    return all(member.masked is member.full for member in members)


def _merged(first: bytes, second: bytes) -> bytes:
    return first[:-1] + b"," + second[1:]


def _listed(members: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(members) + b"]"

# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of domains of version 0: one tag of 32 bytes, in the first block of ``leases``.

Half of the tag says who has the lock, half since when, as 16 hexadecimal digits of microseconds. A fixed tag says
that it is free. How it is taken is in `storage.file.safelease`.
"""

from __future__ import annotations

from storage.errors import InvalidContent

BLOCK = 512
OWNER_SIZE = STAMP_SIZE = 16
FREE = b"------FREE------" + b"0" * STAMP_SIZE


def encode(owner: str, stamp_us: int) -> bytes:
    """The block. ``owner``: at most 16 ASCII characters, no blank."""
    tag = owner.encode("ascii").ljust(OWNER_SIZE) + b"%016x" % stamp_us
    if len(tag) != len(FREE) or b" " in owner.encode("ascii"):
        raise ValueError(f"no tag can hold {owner!r} and {stamp_us}")
    return tag.ljust(BLOCK, b"\0")


def free() -> bytes:
    """The block of a lock that nobody has."""
    return FREE.ljust(BLOCK, b"\0")


def is_free(block: bytes) -> bool:
    return block.startswith(FREE)


def owner(block: bytes, where: str) -> str:
    """Who has it. Raises `InvalidContent` for what is no tag, as an empty file."""
    text = block[:OWNER_SIZE].rstrip(b" ")
    digits = block[OWNER_SIZE : OWNER_SIZE + STAMP_SIZE]
    try:
        int(digits.decode("ascii"), 16)
        name = text.decode("ascii")
    except ValueError:
        raise InvalidContent(where, f"its tag is {block[: len(FREE)]!r}") from None
    if len(digits) < STAMP_SIZE or not name.isprintable() or not name:
        raise InvalidContent(where, f"its tag is {block[: len(FREE)]!r}")
    return name

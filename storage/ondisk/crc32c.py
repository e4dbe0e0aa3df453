# SPDX-License-Identifier: GPL-2.0-or-later
"""CRC-32C (Castagnoli) as sanlock uses it: initial value 0xFFFFFFFE, no final inversion."""

from __future__ import annotations

POLYNOMIAL = 0x82F63B78
INITIAL = 0xFFFFFFFE


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _table()


def checksum(data: bytes) -> int:
    value = INITIAL
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value

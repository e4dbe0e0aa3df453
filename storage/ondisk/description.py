# SPDX-License-Identifier: GPL-2.0-or-later
"""Free text that people give: one line, limited in characters (the field's rule) and in bytes (the room on disk)."""

from __future__ import annotations

from storage.errors import DescriptionTooLong, InvalidContent

WHERE = "Parameter 'description'"


def check(text: str, max_characters: int, max_bytes: int) -> str:
    """Raises `DescriptionTooLong` naming both limits, `InvalidContent`."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if len(text) > max_characters or size > max_bytes:
        raise DescriptionTooLong(len(text), size, max_characters, max_bytes)
    for character in text:
        if character in "\n\r\0" or "\ud800" <= character <= "\udfff":
            raise InvalidContent(WHERE, f"it holds the character {character!a}")
    return text

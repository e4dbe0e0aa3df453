# SPDX-License-Identifier: GPL-2.0-or-later
"""Free text that people give: one line, limited in characters (the field's rule) and in bytes (the room on disk).

One line means one for every reader: VDSM splits text at all that Python's ``str.splitlines`` takes for a line's end
(vertical tab, form feed, U+0085, U+2028, ...), and a text that falls apart there breaks the checksum over it.
"""

from __future__ import annotations

from storage.errors import DescriptionTooLong, InvalidContent

WHERE = "Parameter 'description'"


def check(
    text: str, max_characters: int, max_bytes: int, too_long: type[DescriptionTooLong] = DescriptionTooLong
) -> str:
    """Raises ``too_long`` naming both limits, `InvalidContent`."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if len(text) > max_characters or size > max_bytes:
        raise too_long(len(text), size, max_characters, max_bytes)
    for character in text:
        if not fits_line(character) or "\ud800" <= character <= "\udfff":
            raise InvalidContent(WHERE, f"it holds the character {character!a}")
    return text


def fits_line(text: str) -> bool:
    """Nobody who reads lines takes this for more than one."""
    return "\0" not in text and text.splitlines() in ([], [text])

# SPDX-License-Identifier: GPL-2.0-or-later
"""Wire types: what a parameter may look like on the wire and what a verb gets.

The field's engine sends numbers and booleans as text. A type here says so with ``extra={"wire": ...}``;
`vdsm.api.params` does the conversion before msgspec checks the rest. Text that is no number or no
boolean is an error that names the parameter. Plain ``int`` and ``bool`` in a parameter struct take JSON
numbers and booleans only; plain ``str`` takes at most `MAX_TEXT` characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from vdsm.common.ids import UUID_PATTERN

MAX_TEXT = 64 * 1024  # characters of a text parameter that states no limit of its own
MAX_XML = 1024 * 1024
MAX_SIZE_BYTES = 1 << 60


class Part(msgspec.Struct, kw_only=True):
    """A structure inside parameters."""


class Params(msgspec.Struct, kw_only=True):
    """Parameters of one verb; fields in schema order, wire names by ``field(name=...)``."""


class NoParams(Params):
    """For verbs that take nothing."""


Uuid = Annotated[str, Meta(pattern=UUID_PATTERN, extra={"wire": "uuid"})]
Size = Annotated[int, Meta(ge=0, le=MAX_SIZE_BYTES, description="bytes; may be text", extra={"wire": "int"})]
WireInt = Annotated[int, Meta(description="may be text", extra={"wire": "int"})]
WireUint = Annotated[int, Meta(ge=0, description="may be text", extra={"wire": "int"})]
WireBool = Annotated[bool, Meta(description="may be text: true/false/yes/no/1/0", extra={"wire": "bool"})]
# a number on the wire that some clients send as text and others as a number; the verb wants text
WireText = Annotated[str, Meta(max_length=MAX_TEXT, description="may be a number", extra={"wire": "text"})]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Secret = Annotated[str, Meta(max_length=1024, extra={"wire": "secret"})]  # never shown in an error or a log
Xml = Annotated[str, Meta(max_length=MAX_XML)]
TaskId = Annotated[str, Meta(pattern=UUID_PATTERN, description="id of the started task; poll Task.getStatus")]
JsonDict = dict[str, Any]
JsonList = list[Any]
if TYPE_CHECKING:
    from vdsm.common.encoded import Encoded

    EncodedList = Encoded
else:
    EncodedList = JsonList  # on the wire, and so in the verb's documentation, it is a list


def done() -> JsonDict:
    """The result of those verbs whose value is the status itself: engines read it in place of a value."""
    return {"code": 0, "message": "Done"}

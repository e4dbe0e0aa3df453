# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameter classes for verbs that are not built, made from the contract when such a verb is called first.

They give those verbs the same leniency and the same refusals as the built ones: a caller learns of a wrong
parameter today, not on the day the verb is built.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, Union

import msgspec

from vdsm.api import types as wire
from vdsm.api.contract import ListOf, MapOf, Named, OneOf, Type, bodies, fields, parse, rows

_SCALARS: dict[str, Any] = {
    "uuid": wire.Uuid,
    "text": wire.WireText,  # clients of the field send some texts as numbers
    "xml": wire.Xml,
    "secret": wire.Secret,
    "size": wire.Size,
    "int": wire.WireInt,
    "uint": wire.WireUint,
    "bool": wire.WireBool,
    "float": float,
    "object": wire.JsonDict,
    "json": Any,
    "none": None,
}


def params_of(verb: str) -> type[wire.Params]:
    """The parameters of a verb as a class; a field may be missing where the contract says so."""
    made = _struct(_class_name(verb), rows()[verb].params, wire.Params)
    assert issubclass(made, wire.Params)
    return made


def _class_name(verb: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in verb.replace("_", ".").split(".")) + "Parameters"


def _struct(name: str, names: dict[str, str], base: type[msgspec.Struct]) -> type[msgspec.Struct]:
    made: list[Any] = []
    for field, (text, required) in fields(names).items():
        kind = _python(parse(text))
        made.append((field, kind) if required else (field, kind | None, None))
    return msgspec.defstruct(name, made, bases=(base,), kw_only=True, module=__name__)


def _python(kind: Type) -> Any:
    match kind:
        case ListOf(item):
            return list[_python(item)]  # type: ignore[misc]
        case MapOf(key, value):
            return dict[_python(key), _python(value)]  # type: ignore[misc]
        case OneOf(members):
            return Union[tuple(_member(member) for member in members)]  # noqa: UP007 - made from data
        case Named(name):
            return _SCALARS[name] if name in _SCALARS else _named(name)


def _member(kind: Type) -> Any:
    """Of several structures only one can be told by JSON alone: they are any object here."""
    found = _python(kind)
    return wire.JsonDict if isinstance(found, type) and issubclass(found, msgspec.Struct) else found


@functools.cache
def _named(name: str) -> Any:
    body = bodies()[name]
    if isinstance(body, list):
        return Literal[tuple(body)]
    if isinstance(body, str):
        return _python(parse(body))
    return _struct(name, body, wire.Part)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract's types as JSON Schema, for the API document."""

from __future__ import annotations

from typing import Any

from vdsm.api.contract import ListOf, MapOf, Named, OneOf, Type, bodies, fields, parse
from vdsm.api.types import MAX_SIZE_BYTES
from vdsm.common.ids import UUID_PATTERN

Schema = dict[str, Any]

_DECIMAL = r"^-?[0-9]+(\.[0-9]+)?$"
_SCALARS: dict[str, Schema] = {
    "uuid": {"type": "string", "pattern": UUID_PATTERN},
    "text": {"type": "string"},
    "xml": {"type": "string"},
    "secret": {"type": "string"},
    "size": {"type": "integer", "minimum": 0, "maximum": MAX_SIZE_BYTES, "description": "bytes; may be text"},
    "int": {"type": "integer"},
    "uint": {"type": "integer", "minimum": 0},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "object": {"type": "object"},
    "json": {},
    "none": {"type": "null"},
    "numeral": {"type": ["integer", "string"], "pattern": r"^-?[0-9]+$", "description": "32 bits, may be text"},
    "long": {"type": ["integer", "string"], "pattern": _DECIMAL, "description": "may be text"},
    "decimal": {"type": ["number", "string"], "pattern": _DECIMAL, "description": "a float or text"},
    "flag": {"type": ["boolean", "string"]},
}


def schema(text: str) -> Schema:
    """A type's schema; named types are references into the document's components."""
    return _schema(parse(text))


def parameters(names: dict[str, str]) -> list[Schema]:
    return [
        {"name": name, "required": required, "schema": schema(text)} for name, (text, required) in fields(names).items()
    ]


def components(found: object) -> dict[str, Schema]:
    """Every named type that a part of the document refers to, with all that these refer to."""
    made: dict[str, Schema] = {}
    waiting = _references(found)
    while waiting:
        name = waiting.pop()
        if name in bodies() and name not in made:
            made[name] = _body(name)
            waiting += _references(made[name])
    return made


def _schema(kind: Type) -> Schema:
    match kind:
        case ListOf(item):
            return {"type": "array", "items": _schema(item)}
        case MapOf(_, value):
            return {"type": "object", "additionalProperties": _schema(value)}
        case OneOf(members):
            return {"anyOf": [_schema(member) for member in members]}
        case Named(name):
            return _SCALARS.get(name, {"$ref": f"#/components/schemas/{name}"})


def _body(name: str) -> Schema:
    body = bodies()[name]
    if isinstance(body, list):
        return {"enum": body}
    if isinstance(body, str):
        return schema(body)
    known = fields(body)
    return {
        "type": "object",
        "properties": {field: schema(text) for field, (text, _) in known.items()},
        "required": [field for field, (_, required) in known.items() if required],
    }


def _references(found: object) -> list[str]:
    if isinstance(found, dict):
        own = [str(found["$ref"]).rpartition("/")[2]] if isinstance(found.get("$ref"), str) else []
        return own + [name for value in found.values() for name in _references(value)]
    if isinstance(found, list):
        return [name for value in found for name in _references(value)]
    return []

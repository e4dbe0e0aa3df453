# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong input for any verb, made from the types that it declares.

For each parameter: missing, null, of a wrong type, a path instead of an id, 10 MiB of text; and one that nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import inspect

from vdsm.api.types import Params

ID = "6a3b1f0e-0000-4000-8000-000000000001"
TRAVERSAL = "../../../../etc/passwd"
LONG = "x" * (10 << 20)


def _wire_kind(info: inspect.Type) -> tuple[inspect.Type | None, str]:
    """The type without its wrapping, and how it comes over the wire."""
    wire = ""
    while isinstance(info, inspect.Metadata | inspect.UnionType):
        if isinstance(info, inspect.Metadata):
            wire = (info.extra or {}).get("wire", wire)
            info = info.type
        else:
            members = [member for member in info.types if not isinstance(member, inspect.NoneType)]
            if len(members) > 1:
                return None, wire
            info = members[0]
    return info, wire


def sample(info: inspect.Type) -> Any:
    """A value that the declared type takes."""
    kind, wire = _wire_kind(info)
    if wire == "uuid":
        return ID
    if isinstance(kind, inspect.StructType):
        return {field.encode_name: sample(field.type) for field in kind.fields if field.required}
    if isinstance(kind, inspect.EnumType):
        return next(iter(kind.cls)).value
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    if isinstance(kind, inspect.IntType):
        return kind.ge if kind.ge is not None else 1
    if isinstance(kind, inspect.StrType):
        return "x" * max(1, kind.min_length or 0)
    for cls, value in (
        (inspect.BoolType, True),
        (inspect.FloatType, 1.0),
        (inspect.ListType, []),
        (inspect.SetType, []),
        (inspect.DictType, {}),
    ):
        if isinstance(kind, cls):
            return value
    return {}


def _wrong_type(info: inspect.Type) -> Any:
    """A value that the declared type never takes; None when it takes everything."""
    kind, _ = _wire_kind(info)
    if kind is None or isinstance(kind, inspect.AnyType):
        return None
    if isinstance(kind, inspect.StructType | inspect.DictType):
        return [1]
    return {"a": 1}


def wrong_inputs(params: type[Params]) -> Iterator[tuple[str, Any, str]]:
    """(what, parameters, the name that the error must show) for the parameters of one verb."""
    fields = _fields(params)
    good = {field.encode_name: sample(field.type) for field in fields if field.required}
    yield "unknown name", {**good, "noSuchParameter": 1}, "noSuchParameter"
    for field in fields:
        wire_name = field.encode_name
        if field.required:
            yield "missing", {k: v for k, v in good.items() if k != wire_name}, wire_name
            yield "null", {**good, wire_name: None}, wire_name
        if (wrong := _wrong_type(field.type)) is not None:
            yield "wrong type", {**good, wire_name: wrong}, wire_name
        yield "10 MiB", {**good, wire_name: LONG}, wire_name
        kind, wire = _wire_kind(field.type)
        if wire == "uuid":
            yield "path instead of id", {**good, wire_name: TRAVERSAL}, wire_name
            yield "id and a path", {**good, wire_name: f"{ID}/../{ID}"}, wire_name
        if isinstance(kind, inspect.ListType) and _wire_kind(kind.item_type)[1] == "uuid":
            yield "path instead of an id in a list", {**good, wire_name: [ID, TRAVERSAL]}, wire_name
        if isinstance(kind, inspect.DictType) and _wire_kind(kind.key_type)[1] == "uuid":
            yield "path instead of an id as a name", {**good, wire_name: {TRAVERSAL: "x"}}, wire_name


def _fields(params: type[Params]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(params)
    assert isinstance(info, inspect.StructType)
    return info.fields

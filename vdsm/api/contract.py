# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract: every verb of the field with names and types, as data.

``contract.json`` is written by ``contrib/contract``. The registry checks nothing with it at run time; it makes
the verbs that are not built yet, and tests hold the built ones against it.

A type is a text:

    uuid text xml secret size int uint bool float object json none     scalars; object is any JSON object
    Name                                                               a structure or enumeration of ``types``
    [T]  {K:T}  A|B                                                    list, map, one of several

Words for what engines cast when they read a result (a wrong form is an error of the whole host there):

    numeral   JSON integer or decimal text, 32 bits
    long      JSON integer or decimal text
    decimal   JSON float or decimal text; an integer is dropped
    flag      JSON boolean or text
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

FILE = Path(__file__).with_name("contract.json")

Kind = Literal["sync", "task", "job"]
# an enumeration, the fields of a structure, or another type's text
Body = list[str] | dict[str, str] | str


class Row(msgspec.Struct, frozen=True):
    """One verb. ``params`` are in schema order; a name that ends in ``?`` may be missing."""

    params: dict[str, str]
    result: str
    kind: Kind
    engine: bool
    role: str = "admin"  # of verbs that are not built; a built one says its role itself


class _Document(msgspec.Struct, frozen=True):
    verbs: dict[str, Row]
    types: msgspec.Raw  # read only when somebody asks: most agents never do


@dataclass(frozen=True)
class Named:
    name: str


@dataclass(frozen=True)
class ListOf:
    item: Type


@dataclass(frozen=True)
class MapOf:
    key: Type
    value: Type


@dataclass(frozen=True)
class OneOf:
    members: tuple[Type, ...]


Type = Named | ListOf | MapOf | OneOf


@functools.cache
def _document() -> _Document:
    return msgspec.json.decode(FILE.read_bytes(), type=_Document)


def rows() -> dict[str, Row]:
    return _document().verbs


@functools.cache
def bodies() -> dict[str, Body]:
    """What each name of a type stands for."""
    return msgspec.json.decode(_document().types, type=dict[str, Body])


def parse(text: str) -> Type:
    """A type's text. Raises `ValueError` for what is none."""
    members = _split(text, "|")
    if len(members) > 1:
        return OneOf(tuple(parse(member) for member in members))
    if text.startswith("[") and text.endswith("]"):
        return ListOf(parse(text[1:-1]))
    if text.startswith("{") and text.endswith("}"):
        key, value = _split(text[1:-1], ":", 1)
        return MapOf(parse(key), parse(value))
    if not text.isidentifier():
        raise ValueError(f"{text!r} is no type")
    return Named(text)


def fields(names: dict[str, str]) -> dict[str, tuple[str, bool]]:
    """Wire name -> (type, required)."""
    return {name.removesuffix("?"): (kind, not name.endswith("?")) for name, kind in names.items()}


def _split(text: str, mark: str, most: int = -1) -> list[str]:
    """Split where no bracket is open."""
    parts: list[str] = []
    depth = start = 0
    for place, sign in enumerate(text):
        depth += (sign in "[{") - (sign in "]}")
        if sign == mark and depth == 0 and most != len(parts):
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]

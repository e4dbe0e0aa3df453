# SPDX-License-Identifier: GPL-2.0-or-later
"""Does a result hold what engines cast it to? Each key by the contract; keys that it does not name may be anything.

Engines cast hard: one number in place of a text costs them the whole report, and the host its state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vdsm.api.contract import ListOf, MapOf, Named, OneOf, Type, bodies, fields, parse, rows

_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")
_WHOLE = re.compile(r"-?[0-9]{1,10}\Z")
_MAX = 1 << 31


def wrong(verb: str, value: Any) -> list[str]:
    """What is wrong with a result of ``verb``, as ``place: what stands there``."""
    return list(_wrong(parse(rows()[verb].result), value, "result"))


def _wrong(kind: Type, value: Any, place: str) -> Iterator[str]:
    match kind:
        case ListOf(item):
            if not isinstance(value, list):
                yield f"{place}: {value!r} is no list"
                return
            for number, member in enumerate(value):
                yield from _wrong(item, member, f"{place}[{number}]")
        case MapOf(_, inner):
            if not isinstance(value, dict):
                yield f"{place}: {value!r} is no map"
                return
            for key, member in value.items():
                yield from _wrong(inner, member, f"{place}.{key}")
        case OneOf(members):
            if all(list(_wrong(member, value, place)) for member in members):
                yield f"{place}: {value!r} is none of {members}"
        case Named(name):
            yield from _named(name, value, place)


def _named(name: str, value: Any, place: str) -> Iterator[str]:
    if name not in bodies():
        if not _scalar(name, value):
            yield f"{place}: {value!r} is no {name}"
        return
    body = bodies()[name]
    if isinstance(body, str):
        yield from _wrong(parse(body), value, place)
    elif isinstance(body, list):
        if value not in body:
            yield f"{place}: {value!r} is none of {body}"
    elif not isinstance(value, dict):
        yield f"{place}: {value!r} is no {name}"
    else:
        for key, (text, required) in fields(body).items():
            if key in value:
                yield from _wrong(parse(text), value[key], f"{place}.{key}")
            elif required:
                yield f"{place}.{key} is missing"


def _scalar(name: str, value: Any) -> bool:
    text, number = isinstance(value, str), isinstance(value, int) and not isinstance(value, bool)
    match name:
        case "uuid" | "text" | "xml" | "secret":
            return text
        case "numeral":
            whole = int(value) if number or (text and _WHOLE.match(value)) else None
            return whole is not None and -_MAX <= whole < _MAX
        case "long":
            return number or (text and bool(_DECIMAL.match(value)))
        case "decimal":
            return isinstance(value, float) or (text and bool(_DECIMAL.match(value)))
        case "flag":
            return text or isinstance(value, bool)
        case "int":
            return number and -_MAX <= value < _MAX
        case "uint" | "size":
            return number and value >= 0
        case "bool":
            return isinstance(value, bool)
        case "float":
            return isinstance(value, float)
        case "object":
            return isinstance(value, dict)
        case "none":
            return value is None
    return True

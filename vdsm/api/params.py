# SPDX-License-Identifier: GPL-2.0-or-later
"""From what came over the wire to a verb's typed parameters.

Two passes. The first walks what came beside the declared types: unknown names, missing names, wire
conversions (text to number or boolean), lengths and amounts. The second is msgspec's own check of types and
constraints. Whatever is wrong, the error names the parameter, as ``networks.blue.vlan`` or ``domainList[2]``.

The walk visits at most `MAX_VALUES` values: hostile input costs milliseconds of the loop, not seconds.
"""

from __future__ import annotations

import functools
import re
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from vdsm.api.types import MAX_TEXT, Params
from vdsm.common import metrics
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import check_uuid, shown
from vdsm.common.masking import is_secret

MAX_VALUES = 50_000
MAX_DEPTH = 64
MAX_SHOWN_NAME = 80

_TRUE = frozenset({"true", "yes", "1"})
_FALSE = frozenset({"false", "no", "0"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}\Z")
# the last place counts: a reason may quote what came
_PLACE = re.compile(r"(?P<reason>.*) - at `(?:key in )?\$(?P<path>.*?)`\Z", re.S)
_IGNORED = metrics.counter("vdsm_rpc_unknown_parameters", "Unknown parameter names that were ignored", ("verb",))

P = TypeVar("P", bound=Params)


class BadParameter(InvalidParameter):
    """A parameter that is wrong by its declared type; nothing of the verb has run."""


class Unknown(StrEnum):
    """What a transport does with names that a verb does not know."""

    REFUSE = "refuse"
    IGNORE = "ignore"  # and count: an engine sends names that nobody knows


def convert(verb: str, kind: type[P], raw: object, unknown: Unknown) -> P:
    """``raw`` (object, or list in schema order) as ``kind``. Raises `BadParameter`."""
    info = _shape(kind)
    named = _by_name(info, raw) if isinstance(raw, list | tuple) else raw
    walk = _Walk(unknown)
    try:
        tidy = walk.struct(info, named if isinstance(named, dict) else {}, "")
        converted = msgspec.convert(tidy, kind, strict=True)
    except msgspec.ValidationError as e:
        raise _refused(str(e), named) from None
    except InvalidParameter as e:
        raise BadParameter(e.name, e.value, e.reason) from None
    if walk.ignored:
        _IGNORED.labels(verb).inc(walk.ignored)
    return converted


@functools.cache
def _shape(kind: type[Params]) -> inspect.StructType:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info


def _by_name(info: inspect.StructType, values: list[Any] | tuple[Any, ...]) -> dict[str, Any]:
    if len(values) > len(info.fields):
        raise BadParameter(
            f"[{len(info.fields)}]", shown(values[len(info.fields)]), f"the verb takes {len(info.fields)} parameters"
        )
    return {field.encode_name: value for field, value in zip(info.fields, values, strict=False)}


def _refused(text: str, raw: object) -> BadParameter:
    match = _PLACE.match(text)
    reason, place = (match["reason"], match["path"]) if match is not None else (text, "")
    path = place.removeprefix(".") or "params"
    return BadParameter(path[:MAX_SHOWN_NAME], "<hidden>" if is_secret(path) else _found(raw, path), reason)


def _found(raw: object, path: str) -> str:
    """The value at a path of msgspec (``a[0].b``), for a message."""
    for key, index in re.findall(r"([^.\[\]]+)|\[([0-9]+)\]", path.replace("[...]", ".\0")):
        try:
            raw = raw[int(index)] if index else raw[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return "a value of another kind"
    return shown(raw)


class _Walk:
    def __init__(self, unknown: Unknown) -> None:
        self._unknown = unknown
        self._left = MAX_VALUES
        self._depth = 0
        self.ignored = 0

    def struct(self, info: inspect.StructType, raw: dict[str, Any], path: str) -> dict[str, Any]:
        fields = {field.encode_name: field for field in info.fields}
        tidy: dict[str, Any] = {}
        for name, value in raw.items():
            field = fields.get(name)
            if field is None:
                if self._unknown is Unknown.REFUSE:
                    known = ", ".join(fields) or "none"
                    told = "<hidden>" if is_secret(name) else shown(value, 40)
                    raise InvalidParameter(_joined(path, name), told, f"unknown name; known are: {known}")
                self.ignored += 1
                continue
            tidy[name] = self.value(field.type, value, _joined(path, name))
        for name, field in fields.items():
            if field.required and name not in raw:
                raise InvalidParameter(_joined(path, name), "nothing", "it is required")
        return tidy

    def value(self, info: inspect.Type, raw: Any, path: str, wire: str = "") -> Any:
        self._left -= 1
        if self._left < 0:
            raise InvalidParameter(path, "…", f"more than {MAX_VALUES} values")
        if isinstance(info, inspect.Metadata):
            return self.value(info.type, raw, path, (info.extra or {}).get("wire", wire))
        if isinstance(info, inspect.UnionType):
            chosen = _alternative(info, raw)
            return raw if chosen is None else self.value(chosen, raw, path, wire)
        if not isinstance(raw, dict | list):
            return _scalar(info, raw, path, wire)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidParameter(path, "…", f"nested deeper than {MAX_DEPTH}")
        tidy = self._object(info, raw, path) if isinstance(raw, dict) else self._array(info, raw, path)
        self._depth -= 1
        return tidy

    def _array(self, info: inspect.Type, raw: list[Any], path: str) -> list[Any]:
        inner = info.item_type if isinstance(info, inspect.ListType | inspect.SetType) else inspect.AnyType()
        return [self.value(inner, item, f"{path}[{i}]") for i, item in enumerate(raw)]

    def _object(self, info: inspect.Type, raw: dict[str, Any], path: str) -> dict[str, Any]:
        if isinstance(info, inspect.StructType):
            return self.struct(info, raw, path)
        inner: inspect.Type = inspect.AnyType()
        if isinstance(info, inspect.DictType):
            inner = info.value_type
            if isinstance(info.key_type, inspect.Metadata) and (info.key_type.extra or {}).get("wire") == "uuid":
                for key in raw:
                    check_uuid(path, key)
        for key in raw:
            if len(key) > MAX_TEXT:
                raise InvalidParameter(path, shown(key), f"a name in it is longer than {MAX_TEXT} characters")
        return {key: self.value(inner, value, _joined(path, key)) for key, value in raw.items()}


def printable(name: str) -> str:
    """A name that came over the wire, as a message or a log line may show it."""
    name = name if name.isprintable() else repr(name[: MAX_SHOWN_NAME + 1])
    return name if len(name) <= MAX_SHOWN_NAME else name[:MAX_SHOWN_NAME] + "…"


def _joined(path: str, name: str) -> str:
    return f"{path}.{printable(name)}" if path else printable(name)


def _alternative(info: inspect.UnionType, raw: Any) -> inspect.Type | None:
    """The member of a union that ``raw`` means, by its JSON kind; None leaves it to msgspec."""
    if raw is None and any(isinstance(member, inspect.NoneType) for member in info.types):
        return None
    members = [member for member in info.types if not isinstance(member, inspect.NoneType)]
    if len(members) == 1:
        return members[0]
    plain = {id(m): m.type if isinstance(m, inspect.Metadata) else m for m in members}
    wanted: tuple[type, ...]
    if isinstance(raw, dict):
        wanted = (inspect.StructType, inspect.DictType)
    elif isinstance(raw, list):
        wanted = (inspect.ListType, inspect.SetType)
    elif isinstance(raw, str):
        wanted = (inspect.StrType, inspect.EnumType, inspect.LiteralType)
    else:
        return None
    return next((m for m in members if isinstance(plain[id(m)], wanted)), None)


def _scalar(info: inspect.Type, raw: Any, path: str, wire: str) -> Any:
    if isinstance(raw, str):
        limit = info.max_length if isinstance(info, inspect.StrType) and info.max_length is not None else MAX_TEXT
        if len(raw) > limit:
            raise InvalidParameter(path, f"{len(raw)} characters", f"the text is longer than {limit} characters")
    if wire == "secret" and not isinstance(raw, str):
        raise InvalidParameter(path, "<hidden>", "expected text")
    if wire == "uuid":
        return check_uuid(path, raw)
    if wire == "bool" and isinstance(raw, str):
        return _boolean(raw, path)
    if wire == "int" and isinstance(raw, str):
        if not _INTEGER.match(raw):
            raise InvalidParameter(path, shown(raw), "expected a whole number")
        return int(raw)
    if wire == "text" and isinstance(raw, int | float) and not isinstance(raw, bool):
        return str(raw)
    return raw


def _boolean(raw: str, path: str) -> bool:
    word = raw.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise InvalidParameter(path, shown(raw), "expected true or false")

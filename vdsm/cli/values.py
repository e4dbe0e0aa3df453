# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of a command line to parameters of a verb, with the types that the API document states. Pure.

key=value            text, number, true/false as the parameter wants it; lists as a,b,c or as JSON
key.sub=value        a member of an object; key.0.sub=value of a list's first entry
key=@file            the file's text (key=@- : standard input; key=@@text : text that begins with @)
{...} or [...]       all parameters as JSON; @file and - take that from a file or standard input
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vdsm.common.errors import AgentError

Schema = Mapping[str, Any]
Read = Callable[[str], str]
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class BadArgument(AgentError):
    argument: str
    reason: str
    msg = "{self.argument}: {self.reason}"


class _Parts(dict[str, Any]):
    """An object or list given member by member."""


class Types:
    """The types of one verb's parameters."""

    def __init__(self, method: Schema, components: Schema) -> None:
        self.verb = str(method["name"])
        self.parameters = {str(entry["name"]): dict(entry["schema"]) for entry in method["params"]}
        self._required = [str(entry["name"]) for entry in method["params"] if entry.get("required")]
        self._components = components

    def of(self, path: Sequence[str]) -> Schema:
        """The type at a path; an empty one for anything. Raises BadArgument for a name that nothing has."""
        name = path[0]
        if name not in self.parameters:
            raise BadArgument(name, f"{self.verb} has no such parameter{_hint(name, self.parameters)}")
        schema = self.resolve(self.parameters[name])
        for depth, part in enumerate(path[1:], start=1):
            schema = self._member(schema, part, ".".join(path[: depth + 1]))
        return schema

    def resolve(self, schema: Schema) -> Schema:
        """Without references, and of alternatives the one that is not null."""
        if "$ref" in schema:
            return self.resolve(self._components[str(schema["$ref"]).rpartition("/")[2]])
        choices = [self.resolve(choice) for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
        if len(choices) == 1:
            return choices[0]
        return {} if choices else schema

    def refuse_incomplete(self, params: Mapping[str, Any]) -> None:
        """Raises BadArgument that names all that is missing, also within what is given."""
        missing = list(self._missing({"properties": self.parameters, "required": self._required}, params, ""))
        if missing:
            raise BadArgument(self.verb, f"still needs {', '.join(missing)}")

    def _missing(self, schema: Schema, value: Any, place: str) -> Iterator[str]:
        schema = self.resolve(schema)
        if isinstance(value, list):
            for number, entry in enumerate(value):
                yield from self._missing(schema.get("items", {}), entry, f"{place}{number}.")
        elif isinstance(value, Mapping):
            yield from (f"{place}{name}" for name in schema.get("required", ()) if name not in value)
            for name, inner in schema.get("properties", {}).items():
                if name in value:
                    yield from self._missing(inner, value[name], f"{place}{name}.")

    def _member(self, schema: Schema, part: str, where: str) -> Schema:
        if schema.get("type") == "array":
            if not part.isdigit():
                raise BadArgument(where, f"is an entry of a list: give its number in place of {part!r}, from 0")
            return self.resolve(schema.get("items", {}))
        members = schema.get("properties")
        if members is None:
            rest = schema.get("additionalProperties")
            return self.resolve(rest) if isinstance(rest, dict) else {}
        if part not in members:
            raise BadArgument(where, f"there is no such member{_hint(part, members)}")
        return self.resolve(members[part])


def parameters(words: Sequence[str], types: Types, read: Read) -> Any:
    """What the words say. ``read`` gives the text of a file, or of standard input for ``-``."""
    try:
        return _parameters(words, types, read)
    except RecursionError:
        raise BadArgument("the parameters", "are nested too deep") from None


def _parameters(words: Sequence[str], types: Types, read: Read) -> Any:
    if len(words) == 1 and (words[0] == "-" or words[0][:1] in ("{", "[", "@")):
        return _document(words[0], read)
    found = _Parts()
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise BadArgument(repr(word), "expected key=value, a JSON object, @file or -")
        path = key.split(".")
        schema = types.of(path)
        if text.startswith("@@"):
            text = text[1:]
        elif text.startswith("@"):
            text = read(text[1:])
        _put(found, path, convert(key, text, schema, types), key)
    return _lists(found)


def convert(key: str, text: str, schema: Schema, types: Types) -> Any:
    kind = schema.get("type")
    if kind == "string":
        return text
    if kind == "integer":
        return _number(key, text, int, "a whole number")
    if kind == "number":
        return _number(key, text, float, "a number")
    if kind == "boolean":
        if text.lower() not in _BOOLEANS:
            raise BadArgument(key, f"expected true or false, got {text!r}")
        return _BOOLEANS[text.lower()]
    if kind == "array":
        if text.lstrip().startswith("["):
            return _json(key, text)
        item = types.resolve(schema.get("items", {}))
        return [convert(key, part, item, types) for part in text.split(",") if part]
    if kind == "object":
        return _json(key, text)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _document(word: str, read: Read) -> Any:
    text = read(word.lstrip("@")) if word == "-" or word.startswith("@") else word
    found = _json("the parameters", text)
    if not isinstance(found, dict | list):
        raise BadArgument("the parameters", "expected a JSON object or list")
    return found


def _json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise BadArgument(
            key, f"expected JSON, which this is not: {e}" if text.strip() else "expected JSON, got nothing"
        ) from None


def _number(key: str, text: str, read: Callable[[str], Any], what: str) -> Any:
    try:
        return read(text)
    except ValueError:
        raise BadArgument(key, f"expected {what}, got {text!r}") from None


def _put(found: _Parts, path: Sequence[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        inner = found.setdefault(part, _Parts())
        if not isinstance(inner, _Parts):
            raise BadArgument(key, "given as a whole and in parts")
        found = inner
    if path[-1] in found:
        raise BadArgument(key, "given twice")
    found[path[-1]] = value


def _lists(value: Any) -> Any:
    """Objects whose members are 0, 1, 2 ... were meant as lists."""
    if not isinstance(value, _Parts):
        return value
    if value and sorted(value) == sorted(map(str, range(len(value)))):
        return [_lists(value[str(number)]) for number in range(len(value))]
    return {key: _lists(member) for key, member in value.items()}


def nearest(name: str, names: Sequence[str]) -> str:
    """The name that was probably meant, or nothing. Case does not count."""
    lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    if close:
        return lower[close[0]]
    _, _, last = name.lower().rpartition(".")
    return next((known for word, known in lower.items() if last and word.endswith("." + last)), "")


def _hint(name: str, names: Mapping[str, Any]) -> str:
    near = nearest(name, list(names))
    if near:
        return f"; did you mean {near}?"
    return f"; it has: {', '.join(names)}" if names else "; it has none"

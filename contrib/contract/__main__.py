# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the contract: names and types of every verb of the field, in our own compact form.

    python -m contrib.contract VERBS.json SCHEMA.json > vdsm/api/contract.json

VERBS.json lists verbs (``verb, params: [{name, type, optional}], returns, kind, engine``), SCHEMA.json the types.
Where engines need something else than the schema says, `overrides.json` beside this file says what and why; it is
applied last and read by nobody else, so that writing the contract again loses nothing.

Types are texts: ``uuid``, ``text``, ``int``, ``uint``, ``bool``, ``float``, ``object``, ``json`` (anything), ``none``,
a name of ``types``, ``[T]`` a list, ``{K:T}`` a map, ``A|B`` one of several. In ``types`` a list is an enumeration, an
object the fields of a structure; a name that ends in ``?`` may be missing. What engines cast when they read a result
has words of its own: `vdsm.api.contract` says which.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

OVERRIDES = Path(__file__).with_name("overrides.json")
_SCALARS = {
    "string": "text",
    "int": "int",
    "long": "int",
    "uint": "uint",
    "ulong": "uint",
    "boolean": "bool",
    "float": "float",
    "object": "object",
    "dict": "object",
    "none": "none",
}
_NAME = re.compile(r"[A-Z]\w*|syncType|vmUpdate\w+")

Json = dict[str, Any]


def contract(verbs: list[Json], schema: Json, overrides: Json) -> Json:
    source: Json = schema["verbs"]["types"]
    made: Json = {
        "verbs": {row["verb"]: _verb(row, source) for row in sorted(verbs, key=lambda row: str(row["verb"]))},
        "types": {name: _type(body, source) for name, body in source.items() if "alias" not in body},
    }
    override(made, overrides)
    made["types"] = {name: made["types"][name] for name in sorted(used(made))}
    return made


def override(made: Json, overrides: Json) -> None:
    """Apply what `overrides.json` says; doing it twice changes nothing."""
    for name, change in overrides["types"].items():
        made["types"][name] = change["is"]
    for place, change in overrides["fields"].items():
        type_name, _, field = place.partition(".")
        _set(made["types"][type_name], field, change["is"])
    for place, change in overrides["parameters"].items():
        verb_name, _, parameter = place.rpartition(".")
        _set(made["verbs"][verb_name]["params"], parameter, change["is"])
    for name, change in overrides["results"].items():
        made["verbs"][name]["result"] = change["is"]
    for role, names in overrides["roles"].items():
        for name in names:
            made["verbs"][name]["role"] = role


def used(made: Json) -> set[str]:
    """Names of the types that a verb leads to."""
    found: set[str] = set()
    waiting = [text for row in made["verbs"].values() for text in (*row["params"].values(), row["result"])]
    while waiting:
        for name in _NAME.findall(waiting.pop()):
            if name not in found:
                found.add(name)
                body = made["types"][name]
                waiting += [body] if isinstance(body, str) else [] if isinstance(body, list) else body.values()
    return found


def _set(names: Json, name: str, kind: str) -> None:
    """``name`` may end in ``?``. A name that is there keeps its place: positional parameters count on the order."""
    bare = name.removesuffix("?")
    items = [(name, kind) if key.removesuffix("?") == bare else (key, value) for key, value in names.items()]
    if (name, kind) not in items:
        items.append((name, kind))
    names.clear()
    names.update(items)


def _verb(row: Json, source: Json) -> Json:
    return {
        "params": {_optional(p["name"], p): _reference(p["type"], source) for p in row["params"]},
        "result": _reference(row["returns"], source),
        "kind": row["kind"],
        "engine": row["engine"],
    }


def _type(body: Json, source: Json) -> Any:
    if "object" in body:
        return {_optional(name, field): _reference(field["type"], source) for name, field in body["object"].items()}
    if "enum" in body:
        return body["enum"] if all(isinstance(value, str) for value in body["enum"]) else "json"
    if "map" in body:
        key, value = body["map"]
        return f"{{{_reference(key, source)}:{_reference(value, source)}}}"
    return "|".join(dict.fromkeys(_reference(member, source) for member in body["union"]))


def _optional(name: str, facts: Json) -> str:
    return f"{name}?" if facts.get("optional") else name


def _reference(kind: Any, source: Json) -> str:
    if isinstance(kind, list):
        return f"[{_reference(kind[0], source)}]"
    if kind.startswith("["):
        return f"[{_reference(kind[1:-1], source)}]"
    if kind == "UUID":
        return "uuid"
    if kind in _SCALARS:
        return _SCALARS[kind]
    body = source.get(kind)
    if body is None:  # a name that the schema does not explain
        return "json"
    return _reference(body["alias"], source) if "alias" in body else str(kind)


def main() -> None:
    verbs, schema = (json.loads(Path(name).read_text()) for name in sys.argv[1:3])
    made = contract(verbs, schema, json.loads(OVERRIDES.read_text()))
    print(text(made))


def text(made: Json) -> str:
    """One line for each verb and type, so that a change shows as one line."""

    def block(name: str) -> str:
        rows = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in made[name].items()]
        return f'"{name}": {{\n' + ",\n".join(rows) + "\n}"

    return "{\n" + block("verbs") + ",\n" + block("types") + "\n}"


if __name__ == "__main__":
    main()

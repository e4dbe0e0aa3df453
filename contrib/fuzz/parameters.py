# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters of every verb: converted by their declared types, or refused by the one error for it.

More must hold: a transport that ignores unknown names takes all that a strict one takes, and as the same; parameters
by position mean what they mean by name; what was converted can be sent again; a refusal names a parameter, in one short
line without what is in a field for secrets.

An input is the JSON of a request: its method and its params. A change of it goes by the types of the verb, so that it
gets deep into structures.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from contrib.fuzz import json_forms
from contrib.fuzz.target import Target
from contrib.lab.wrong_input import sample
from vdsm.api import registry
from vdsm.api.params import BadParameter, Unknown, convert, printable
from vdsm.api.types import Params
from vdsm.rpc import protocol

VERBS = registry.load()
SECRETS = frozenset({"password", "_X_tpmdata", "_X_nvramdata"})
MARK = "swordfish"
MAX_TEXT = 5000


def run(data: bytes) -> None:
    try:
        message = protocol.decode(data)
    except protocol.Refused:
        return
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        return
    entry, raw = VERBS.get(message["method"]), message.get("params", {})
    if entry is None or not isinstance(raw, dict | list):
        return
    strict = _converted(entry, raw, Unknown.REFUSE)
    lenient = _converted(entry, raw, Unknown.IGNORE)
    if strict is not None:
        assert lenient == strict
        assert _converted(entry, msgspec.to_builtins(strict), Unknown.REFUSE) == strict
    if isinstance(raw, dict) and list(raw) == list(_names(entry)[: len(raw)]):
        assert _converted(entry, list(raw.values()), Unknown.IGNORE) == lenient


def _converted(entry: registry.Verb, raw: Any, unknown: Unknown) -> Params | None:
    try:
        made = convert(entry.name, entry.params, raw, unknown)
    except BadParameter as error:
        _check(entry, raw, error)
        return None
    assert type(made) is entry.params
    return made


def _check(entry: registry.Verb, raw: Any, refusal: BadParameter) -> None:
    text = str(refusal)
    assert text.isprintable(), f"not one line: {text!r}"
    assert len(text) <= MAX_TEXT
    known = (*_names(entry), *(raw if isinstance(raw, dict) else ()), "params", "[")
    assert any(refusal.name.startswith(printable(name)) for name in known), f"no parameter: {refusal.name!r}"
    assert MARK not in text or MARK in repr(_without_secrets(entry, raw)), "a secret is shown"


def _without_secrets(entry: registry.Verb, raw: Any) -> Any:
    if isinstance(raw, list):
        raw = dict(itertools.zip_longest(_names(entry), raw)) if len(raw) <= len(_names(entry)) else {"": raw}
    copy = json.loads(msgspec.json.encode(raw))
    for container, key in json_forms.places(copy):
        if key in SECRETS:
            container[key] = None
    return copy


@functools.cache
def _shape(verb: str) -> inspect.Type:
    return inspect.type_info(VERBS[verb].params)


def _names(entry: registry.Verb) -> tuple[str, ...]:
    return entry.params.__struct_encode_fields__


def value(info: inspect.Type, rng: random.Random) -> Any:
    """Mostly what the declared type takes; each level may be something else."""
    if rng.random() < 0.06:
        return json_forms.nasty(rng)
    match info:
        case inspect.Metadata(extra={"wire": "secret"}):
            return MARK if rng.random() < 0.6 else [MARK] if rng.random() < 0.5 else MARK * 200
        case inspect.Metadata(extra={"wire": "int"}):
            return rng.choice((1, "1", 4096, "-5"))
        case inspect.Metadata(extra={"wire": "bool"}):
            return rng.choice((True, "yes", "False"))
        case inspect.Metadata(type=inner) if not isinstance(inner, inspect.StrType | inspect.IntType):
            return value(inner, rng)
        case inspect.UnionType(types=types):
            return value(rng.choice(types), rng)
        case inspect.StructType(fields=fields):
            wanted = [field for field in fields if field.required or rng.random() < 0.4]
            return {field.encode_name: value(field.type, rng) for field in wanted}
        case inspect.ListType(item_type=inner):
            return [value(inner, rng) for _ in range(rng.randrange(3))]
        case inspect.DictType(key_type=name, value_type=inner):
            return {str(sample(name)) + "x" * n: value(inner, rng) for n in range(rng.randrange(3))}
        case inspect.LiteralType(values=values):
            return rng.choice(values)
        case inspect.NoneType() | inspect.AnyType():
            return json_forms.nasty(rng)
    return sample(info)


def mutate(data: bytes, rng: random.Random) -> bytes:
    made = None if rng.random() < 0.3 else json_forms.changed(data, rng)
    return made or json_forms.written(_request(rng.choice(sorted(VERBS)), rng), rng)


def _request(verb: str, rng: random.Random) -> dict[str, Any]:
    params = value(_shape(verb), rng)
    if isinstance(params, dict) and rng.random() < 0.1:
        params = list(params.values())
    return {"method": verb, "params": params}


def seeds() -> Iterator[bytes]:
    rng = random.Random(1)
    for verb in sorted(VERBS):
        for _ in range(2):
            yield json_forms.written(_request(verb, rng), rng)


TARGET = Target(run, seeds, max_bytes=4096, tokens=(b'"method":', b'"params":', b'"true"', b"null"), mutate=mutate)

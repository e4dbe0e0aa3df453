# SPDX-License-Identifier: GPL-2.0-or-later
"""The registry against the contract: every verb is there, built ones take what the contract says."""

import json
import pathlib

import pytest
from msgspec import inspect

from contrib.contract import __main__ as generator
from vdsm.api import contract, coverage, registry
from vdsm.api.contract import ListOf, MapOf, Named, OneOf, bodies, fields, parse
from vdsm.api.contract_types import params_of
from vdsm.common.ids import UUID_PATTERN

ROOT = pathlib.Path(__file__).parents[3]
VERBS = registry.load()
ROWS = contract.rows()
BUILT = sorted(name for name in ROWS if VERBS[name].run is not None)
NOT_BUILT = sorted(name for name in ROWS if VERBS[name].run is None)
OVERRIDES = json.loads(generator.OVERRIDES.read_text())

WIRE = {"int": "int", "uint": "int", "size": "int", "bool": "bool"}
TEXTS = {"text", "xml", "secret"}


def test_every_verb_of_the_field_is_registered():
    assert len(ROWS) == 205
    assert {name for name in set(VERBS) - set(ROWS) if not name.startswith("storage.get")} == {"rpc.discover"}
    assert set(ROWS) <= set(VERBS)
    assert sum(row.engine for row in ROWS.values()) == 153


def test_contract_that_is_checked_in_holds_every_override():
    text = contract.FILE.read_text()
    made = json.loads(text)
    generator.override(made, OVERRIDES)
    assert generator.text(made) + "\n" == text
    assert set(made["types"]) == generator.used(made)


@pytest.mark.parametrize("section", ["parameters", "fields", "types", "results"])
def test_every_override_has_a_reason(section):
    for place, change in OVERRIDES[section].items():
        assert len(change["why"]) > 10, place


def test_role_in_the_contract_is_only_for_verbs_that_are_not_built():
    assert [name for name in BUILT if ROWS[name].role != "admin"] == []


@pytest.mark.parametrize("name", NOT_BUILT)
def test_parameters_of_a_verb_that_is_not_built_follow_the_contract(name):
    known = fields(ROWS[name].params)
    made = inspect.type_info(params_of(name)).fields
    assert [field.encode_name for field in made] == list(known)
    for field in made:
        kind, required = known[field.encode_name]
        assert field.required is required
        assert difference(parse(kind), field.type) is None


@pytest.mark.parametrize("name", BUILT)
def test_built_verb_takes_what_the_contract_says(name):
    known = fields(ROWS[name].params)
    taken = {field.encode_name: field for field in inspect.type_info(VERBS[name].params).fields}
    assert list(taken) == list(known), "names and their order"
    for parameter, (kind, required) in known.items():
        assert taken[parameter].required is required, parameter
        assert difference(parse(kind), taken[parameter].type) is None, parameter


@pytest.mark.parametrize("name", BUILT)
def test_built_verb_answers_the_kind_of_value_that_the_contract_says(name):
    entry, kind = VERBS[name], parse(ROWS[name].result)
    assert entry.kind == ROWS[name].kind
    if kind == Named("none"):
        assert entry.result is type(None)
    else:
        assert difference(kind, inspect.type_info(entry.result)) is None


def test_coverage_that_is_checked_in_equals_the_code():
    assert (ROOT / "docs" / "api" / "coverage.md").read_text() == coverage.page(VERBS), "run: make openrpc"


def difference(kind, info, wire=""):
    """Why a declared type is not what the contract says; None when it is. Objects may be taken unread."""
    while isinstance(info, inspect.Metadata | inspect.UnionType):
        if isinstance(info, inspect.Metadata):
            wire = (info.extra or {}).get("wire", wire)
            info = info.type
            continue
        members = [member for member in info.types if not isinstance(member, inspect.NoneType)]
        if len(members) > 1:
            return None if isinstance(kind, OneOf) else f"a union for {kind}"
        info = members[0]
    if isinstance(info, inspect.AnyType):
        return None if kind == Named("json") else "anything"
    match kind:
        case ListOf(item):
            if not isinstance(info, inspect.ListType):
                return "no list"
            loose = isinstance(info.item_type, inspect.AnyType)
            return None if loose else difference(item, info.item_type)
        case MapOf(_, value):
            if not isinstance(info, inspect.DictType):
                return "no map"
            return None if isinstance(info.value_type, inspect.AnyType) else difference(value, info.value_type)
        case OneOf():
            return "one of several"
    return scalar_difference(kind.name, info, wire)


def scalar_difference(name, info, wire):
    body = bodies().get(name)
    if isinstance(body, str):
        return difference(parse(body), info, wire)
    if isinstance(body, list):
        return None if isinstance(info, inspect.StrType | inspect.LiteralType) else "no text"
    if name == "object" or isinstance(body, dict):
        if isinstance(info, inspect.DictType):
            return None
        return structure_difference(body or {}, info) if isinstance(info, inspect.StructType) else "no object"
    if name in TEXTS:
        return None if isinstance(info, inspect.StrType) and wire not in (*WIRE.values(), "uuid") else "no text"
    if name == "float":
        return None if isinstance(info, inspect.FloatType) else "no float"
    if name == "uuid":
        return None if isinstance(info, inspect.StrType) and info.pattern == UUID_PATTERN else "any text"
    return None if wire == WIRE[name] else f"comes as {wire or 'itself'}"


def structure_difference(body, info):
    known = fields(body)
    for field in info.fields:
        if field.encode_name not in known:
            return f"{field.encode_name} is unknown to the contract"
        kind, required = known[field.encode_name]
        if field.required and not required:
            return f"{field.encode_name} is required"
        if found := difference(parse(kind), field.type):
            return f"{field.encode_name}: {found}"
    missing = known.keys() - {field.encode_name for field in info.fields}
    return f"{sorted(missing)} not taken" if missing else None

# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of a command line become the parameters that the API document asks for."""

import pytest

from vdsm.cli.values import BadArgument, Types, nearest, parameters

METHOD = {
    "name": "Test.verb",
    "params": [
        {"name": "size", "required": True, "schema": {"type": "integer"}},
        {"name": "force", "schema": {"type": "boolean"}},
        {"name": "desc", "schema": {"type": "string"}},
        {"name": "ids", "schema": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}},
        {"name": "vmParams", "required": True, "schema": {"$ref": "#/components/schemas/Vm"}},
        {"name": "connections", "schema": {"type": "array", "items": {"$ref": "#/components/schemas/Vm"}}},
        {"name": "domains", "schema": {"type": "object", "additionalProperties": {"type": "string"}}},
    ],
}
PROPERTIES = {"xml": {"type": "string"}, "port": {"type": "integer"}}
COMPONENTS = {"Vm": {"type": "object", "properties": PROPERTIES, "required": ["xml"]}}
FILES = {"f.xml": "<domain/>", "-": '{"size": 7}', "p.json": '{"force": false}'}


def read(*words):
    return parameters(words, Types(METHOD, COMPONENTS), FILES.__getitem__)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["size=42", "force=yes"], {"size": 42, "force": True}),
        (["desc=42"], {"desc": "42"}),
        (["desc=a=b"], {"desc": "a=b"}),
        (["ids=a,b"], {"ids": ["a", "b"]}),
        (['ids=["a,b"]'], {"ids": ["a,b"]}),
        (["vmParams.xml=@f.xml", "vmParams.port=5"], {"vmParams": {"xml": "<domain/>", "port": 5}}),
        (["connections.0.xml=a", "connections.1.xml=b"], {"connections": [{"xml": "a"}, {"xml": "b"}]}),
        (["domains.6a3b-1=active"], {"domains": {"6a3b-1": "active"}}),
        (['domains={"0": "x"}'], {"domains": {"0": "x"}}),
        (["desc=@@home"], {"desc": "@home"}),
        (['{"size": "x"}'], {"size": "x"}),
        (["-"], {"size": 7}),
        (["@p.json"], {"force": False}),
    ],
)
def test_words_become_typed_parameters(words, expected):
    assert read(*words) == expected


@pytest.mark.parametrize(
    "word",
    ["domains=" + "[" * 100_000, "[" * 100_000, "domains" + ".a" * 5000 + "=x"],
    ids=["a value", "all", "a name of members"],
)
def test_what_is_nested_too_deep_is_refused(word):
    with pytest.raises(BadArgument, match="nested too deep"):
        read(word)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["siz=1"], "did you mean size?"),
        (["size=big"], "size: expected a whole number"),
        (["force=maybe"], "force: expected true or false"),
        (["vmParams.xlm=a"], "did you mean xml?"),
        (["connections.x.xml=a"], "give its number"),
        (["size"], "expected key=value"),
        (["size=1", "size=2"], "given twice"),
        (['vmParams={"port": 1}', "vmParams.xml=a"], "given as a whole and in parts"),
        (["{broken"], "expected JSON, which this is not"),
    ],
)
def test_wrong_words_are_refused_by_name(words, said):
    with pytest.raises(BadArgument) as caught:
        read(*words)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("host.getstats", "Host.getStats"), ("getStats", "Host.getStats"), ("Host.getStat", "Host.getStats"), ("zz", "")],
)
def test_nearest_name(name, meant):
    assert nearest(name, ["Host.getStats", "VM.create"]) == meant


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "size, vmParams"),
        ({"vmParams": {}}, "size, vmParams.xml"),
        ({"size": 1, "vmParams": {"xml": ""}, "connections": [{"xml": ""}, {"port": 1}]}, "connections.1.xml"),
    ],
)
def test_all_that_is_missing_is_named_at_once(params, said):
    with pytest.raises(BadArgument) as caught:
        Types(METHOD, COMPONENTS).refuse_incomplete(params)
    assert str(caught.value) == f"Test.verb: still needs {said}"


def test_what_is_complete_is_not_refused():
    Types(METHOD, COMPONENTS).refuse_incomplete({"size": 1, "vmParams": {"xml": ""}})

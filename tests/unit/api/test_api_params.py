# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters: what converts, and that every refusal names the parameter."""

import contextlib
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import field

from vdsm.api.params import MAX_VALUES, BadParameter, Unknown, convert
from vdsm.api.types import (
    MAX_TEXT,
    JsonDict,
    Params,
    Part,
    Secret,
    Size,
    Uuid,
    WireBool,
    WireInt,
    WireText,
    Xml,
)

ID = "6a3b1f0e-0000-4000-8000-000000000001"


class Nic(Part):
    vlan: WireInt = 0
    stp: WireBool | None = field(default=None, name="STP")


class Everything(Params):
    volume_id: Uuid = field(name="volumeID")
    size: Size | None = None
    force: WireBool = False
    count: WireInt = 0
    plain: int = 0
    flag: bool = False
    lease: WireText = ""
    text: str = ""
    xml: Xml = ""
    password: Secret = ""
    kind: Literal["raw", "cow"] = "raw"
    nics: dict[str, Nic] = field(default_factory=dict)
    states: dict[Uuid, str] = field(default_factory=dict)
    domains: list[Uuid] = field(default_factory=list)
    spec: str | JsonDict | None = None
    params: JsonDict = field(default_factory=dict)


def read(unknown=Unknown.REFUSE, **values):
    return convert("Test.verb", Everything, {"volumeID": ID, **values}, unknown)


@pytest.mark.parametrize("word", ["true", "True", "YES", "1"])
def test_text_is_true(word):
    assert read(force=word).force is True


@pytest.mark.parametrize("word", ["false", "False", "NO", "0"])
def test_text_is_false(word):
    assert read(force=word).force is False


def test_numbers_come_as_text_or_number():
    assert (read(size="1073741824").size, read(size=5).size) == (1 << 30, 5)
    assert (read(count="-5").count, read(lease=7).lease) == (-5, "7")
    assert read(nics={"blue": {"vlan": "10", "STP": "no"}}).nics["blue"] == Nic(vlan=10, stp=False)


def test_positional_parameters_follow_schema_order():
    assert convert("Test.verb", Everything, [ID, "5"], Unknown.REFUSE).size == 5


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"volumeID": "../../../etc/passwd"}, "volumeID"),
        ({"volumeID": ID.upper()}, "volumeID"),
        ({"volumeID": ID + "\n"}, "volumeID"),
        ({"volumeID": 5}, "volumeID"),
        ({"volumeID": None}, "volumeID"),
        ({"size": "12 GiB"}, "size"),
        ({"size": -1}, "size"),
        ({"size": 1.5}, "size"),
        ({"size": "9" * 19}, "size"),
        ({"size": "\u0661"}, "size"),
        ({"force": "maybe"}, "force"),
        ({"force": 1}, "force"),
        ({"count": True}, "count"),
        ({"plain": "5"}, "plain"),
        ({"flag": "true"}, "flag"),
        ({"kind": "vmdk"}, "kind"),
        ({"text": 5}, "text"),
        ({"text": "x" * (10 << 20)}, "text"),
        ({"kind": "x" * (10 << 20)}, "kind"),
        ({"volumeID": "x" * (10 << 20)}, "volumeID"),
        ({"spec": "x" * (10 << 20)}, "spec"),
        ({"params": {"deep": [{"er": "x" * (10 << 20)}]}}, "params.deep[0].er"),
        ({"params": {"x" * (10 << 20): 1}}, "params"),
        ({"params": []}, "params"),
        ({"nics": {"blue": {"vlan": "x"}}}, "nics.blue.vlan"),
        ({"nics": {"blue": {"color": 1}}}, "nics.blue.color"),
        ({"nics": {"blue": 5}}, "nics"),
        ({"domains": [ID, "../x"]}, "domains[1]"),
        ({"states": {"../x": "active"}}, "states"),
        ({"states": {ID + "\n": "active"}}, "states"),
        ({"spec": 5}, "spec"),
        ({"leafVolID": ID}, "leafVolID"),
        ({"domains": [ID] * (MAX_VALUES + 1)}, "domains"),
    ],
)
def test_refusal_names_the_parameter(raw, name):
    with pytest.raises(BadParameter) as caught:
        read(**raw)
    assert f"Parameter '{name}" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_missing_parameter_is_named():
    with pytest.raises(BadParameter, match="'volumeID' is invalid: it is required"):
        convert("Test.verb", Everything, {}, Unknown.REFUSE)


def test_unknown_names_are_ignored_where_the_transport_says_so():
    assert read(Unknown.IGNORE, leafVolID=ID, nics={"blue": {"color": 1}}).nics["blue"] == Nic()


@pytest.mark.parametrize("value", [5, ["swordfish"], {"swordfish": 1}, "swordfish" * 1000])
def test_refused_secret_is_not_shown(value):
    with pytest.raises(BadParameter) as caught:
        read(password=value)
    assert "swordfish" not in str(caught.value)


def test_text_may_be_longer_where_the_type_says_so():
    assert len(read(xml="x" * (MAX_TEXT + 1)).xml) == MAX_TEXT + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*Everything.__struct_encode_fields__, "other"]), JSON) | st.lists(JSON))
def test_whatever_comes_is_converted_or_refused(raw):
    with contextlib.suppress(BadParameter):
        assert convert("Test.verb", Everything, raw, Unknown.REFUSE).volume_id

# SPDX-License-Identifier: GPL-2.0-or-later
"""What was encoded before, in its two forms."""

from __future__ import annotations

import json

import pytest

from vdsm.common.encoded import as_list, encode, merge

PLAIN, SECRET = {"a": 1, "b": "ü"}, {"password": "hunter22", "file": "x"}


def test_what_has_nothing_to_hide_has_one_form() -> None:
    told = encode(PLAIN)
    assert json.loads(told.full) == PLAIN
    assert told.masked is told.full


def test_a_word_that_could_be_of_a_secret_hides_nothing_else() -> None:
    assert json.loads(encode({"name": "fileserver"}).masked) == {"name": "fileserver"}


def test_secrets_are_in_the_full_form_only() -> None:
    told = encode(SECRET)
    assert json.loads(told.full) == SECRET
    assert json.loads(told.masked) == {"password": "*****", "file": "x"}


@pytest.mark.parametrize(("first", "second"), [(PLAIN, SECRET), (SECRET, PLAIN)])
def test_merged_objects_have_the_members_of_both_in_each_form(first: dict[str, str], second: dict[str, str]) -> None:
    told = merge(encode(first), encode(second))
    assert json.loads(told.full) == first | second
    assert json.loads(told.masked) == PLAIN | {"password": "*****", "file": "x"}


def test_merged_objects_without_secrets_have_one_form() -> None:
    told = merge(encode({"a": 1}), encode({"b": 2}))
    assert told.full == b'{"a":1,"b":2}'
    assert told.masked is told.full


def test_a_list_has_each_member_in_each_form() -> None:
    told = as_list([encode(PLAIN), encode(SECRET), encode(3)])
    assert json.loads(told.full) == [PLAIN, SECRET, 3]
    assert json.loads(told.masked) == [PLAIN, {"password": "*****", "file": "x"}, 3]
    plain = as_list([encode(1), encode(2)])
    assert plain.masked is plain.full
    assert as_list([]).full == b"[]"


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        encode({"a": object()})

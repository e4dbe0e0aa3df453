# SPDX-License-Identifier: GPL-2.0-or-later
"""XML that would cost more time than its length: refused at once, because the loop has others to serve."""

from __future__ import annotations

import time

import pytest

from vdsm.common.xml import MAX_ATTRIBUTES, InvalidXml, parse


def _element(attributes: int) -> str:
    return "<x " + " ".join(f'a{number}="1"' for number in range(attributes)) + "/>"


def test_an_element_with_a_crowd_of_attributes_is_refused() -> None:
    assert len(parse(_element(MAX_ATTRIBUTES), what="it").attrib) == MAX_ATTRIBUTES
    with pytest.raises(InvalidXml, match="attributes"):
        parse(f"<y>{_element(MAX_ATTRIBUTES + 1)}</y>", what="it")


@pytest.mark.parametrize("before", ["", '<?xml version="1.0"?>', "<!-- <x> -->\n<?a <x> ?> ", "\ufeff"])
def test_a_document_type_is_refused_before_it_is_read(before: str) -> None:
    declarations = " ".join(f'a{number} CDATA "1"' for number in range(60000))
    began = time.process_time()
    with pytest.raises(InvalidXml, match="document type"):
        parse(f"{before}<!DOCTYPE x [<!ATTLIST x {declarations}>]><x/>", what="it")
    assert time.process_time() - began < 1


def test_another_encoding_that_a_text_names_hides_nothing() -> None:
    hidden = '<?xml version="1.0" encoding="UTF-7"?>+ADw-x/+AD4-'
    with pytest.raises(InvalidXml):
        parse(hidden, what="it")


def test_what_only_looks_like_a_document_type_is_text() -> None:
    assert parse("<x><![CDATA[<!DOCTYPE html>]]></x>", what="it").text == "<!DOCTYPE html>"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no.xml", "it is not valid XML: Start tag expected, '<' not found, line 1, column 1"),
        ("<x>\n\0</x>", "it is not valid XML: Invalid character: Char 0x0 out of allowed range, line 2, column 1"),
    ],
)
def test_where_a_text_is_wrong_is_told_once_and_in_one_line(text: str, told: str) -> None:
    with pytest.raises(InvalidXml) as refused:
        parse(text, what="it")
    assert str(refused.value) == told

# SPDX-License-Identifier: GPL-2.0-or-later
"""XML from outside: no entities, no network, no huge trees, and errors that name the text."""

from __future__ import annotations

from lxml import etree

from vdsm.common.errors import AgentError

MAX_BYTES = 8 << 20


class InvalidXml(AgentError):
    what: str
    reason: str
    msg = "{self.what} is not valid XML: {self.reason}"


def parse(text: str | bytes, *, what: str) -> etree._Element:
    """The root element. ``what`` names the text in the error ('the domain XML of VM …')."""
    data = text.encode() if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise InvalidXml(what, f"{len(data)} bytes is over the limit of {MAX_BYTES}")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, remove_blank_text=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as e:
        raise InvalidXml(what, str(e)) from None
    docinfo = root.getroottree().docinfo
    if docinfo.internalDTD is not None or docinfo.externalDTD is not None:
        raise InvalidXml(what, "a document type declaration is not allowed")
    return root


def to_text(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode")

# SPDX-License-Identifier: GPL-2.0-or-later
"""XML from outside: no entities, no network, no huge trees, and errors that name the text; and what of it is secret.

What is slow by its nature is refused before it costs anything: a document type is not even read, and an element with
a crowd of attributes is not worked on, because each of its attributes is looked for among all others.

Secret in a domain's or a device's XML: attributes and elements that are named after a password, files of a payload
(cloud-init, sysprep), and QEMU options that speak of a password.
"""

from __future__ import annotations

import re

from lxml import etree

from vdsm.common.errors import AgentError
from vdsm.common.masking import HIDDEN

MAX_BYTES = 8 << 20
MAX_ATTRIBUTES = 100  # of one element

_SECRET_NAME = re.compile(r"(passwd|password|passphrase|secret|token)$", re.IGNORECASE)
_SECRET_OPTION = re.compile(r"passw|passphrase|secret|token", re.IGNORECASE)
# before the root element
_DOCUMENT_TYPE = re.compile(rb"(?:\s++|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PAYLOADS = frozenset({"payload", "vmPayload"})


class InvalidXml(AgentError):
    what: str
    reason: str
    msg = "{self.what} is not valid XML: {self.reason}"


def parse(text: str | bytes, *, what: str) -> etree._Element:
    """The root element. ``what`` names the text in the error ('the domain XML of VM …')."""
    data = text.encode() if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise InvalidXml(what, f"{len(data)} bytes is over the limit of {MAX_BYTES}")
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if _DOCUMENT_TYPE.match(data):
        raise InvalidXml(what, "a document type declaration is not allowed")
    # whatever encoding it says it has: in another one the bytes would say something else than what was looked at
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, remove_blank_text=False, encoding="utf-8"
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as e:
        raise InvalidXml(what, (e.msg or str(e)).replace("\n", "")) from None
    except ValueError as e:
        raise InvalidXml(what, str(e)) from None
    for element in root.iter(etree.Element):
        if len(element.attrib) > MAX_ATTRIBUTES:
            raise InvalidXml(what, f"an element has {len(element.attrib)} attributes, {MAX_ATTRIBUTES} are allowed")
    return root


def to_text(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode")


def hide_secrets(root: etree._Element) -> None:
    """Write `HIDDEN` over every secret in ``root``."""
    for element in root.iter(etree.Element):
        name = etree.QName(element).localname
        if (element.text or "").strip() and (_SECRET_NAME.search(name) or (name == "file" and _in_payload(element))):
            element.text = HIDDEN
        option = element.get("name", "") if name in ("arg", "env") else None
        for attribute, value in element.items():
            says_so = option is not None and attribute != "name" and _SECRET_OPTION.search(f"{option} {value!s}")
            if says_so or _SECRET_NAME.search(etree.QName(attribute).localname):
                element.set(attribute, HIDDEN)


def without_secrets(text: str) -> str:
    """``text`` with `HIDDEN` for every secret; empty when it can't be read, because then nobody knows what is one."""
    try:
        root = parse(text, what="it")
    except InvalidXml:
        return ""
    hide_secrets(root)
    return to_text(root)


def _in_payload(element: etree._Element) -> bool:
    return any(
        isinstance(parent.tag, str) and etree.QName(parent).localname in _PAYLOADS for parent in element.iterancestors()
    )

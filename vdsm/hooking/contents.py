# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts did to the document they were given: is it still usable, and what changed.

Pure functions. A domain keeps its uuid and name, a device its kind; more is libvirt's to judge. Passwords
are masked in a difference, because it is kept and shown.
"""

from __future__ import annotations

import difflib
import json
import re

from vdsm.common.errors import AgentError
from vdsm.hooking.points import Data

MAX_BYTES = 8 << 20
MAX_DIFF_CHARACTERS = 16_384
_MAX_COMPARED = 512 << 10

_PASSWORD = re.compile(r"""(passwd|password|secret)(["']?\s*[=:]\s*)(["'])(?:\\.|(?!\3).)*\3""", re.IGNORECASE)
_BETWEEN_TAGS = re.compile(r">\s*<(?!/)|(?<=>)\s+(?=</)")
_CLOSINGS = re.compile(r"(</[^<>]*>)(?=</)")


def problem(data: Data, before: str, after: str) -> str:
    """What is wrong with the document that a script left; empty when nothing is."""
    if after == before:
        return ""
    if data is Data.JSON:
        return _json_problem(after)
    if data in (Data.DOMAIN, Data.DEVICE):
        return _xml_problem(data, before, after)
    return ""


def difference(data: Data, before: str, after: str) -> str:
    """A unified diff, one XML element or JSON member to a line, bounded, without passwords."""
    if before == after:
        return ""
    if max(len(before), len(after)) > _MAX_COMPARED:
        return f"[{len(before)} characters became {len(after)}]\n"
    lines = difflib.unified_diff(_lines(data, before), _lines(data, after), "before", "after", n=2, lineterm="")
    text = _PASSWORD.sub(r"\1\2\3***\3", "\n".join(lines))
    if len(text) > MAX_DIFF_CHARACTERS:
        text = f"{text[:MAX_DIFF_CHARACTERS]}\n[{len(text) - MAX_DIFF_CHARACTERS} characters left out]"
    return text + "\n" if text else ""


def _json_problem(after: str) -> str:
    try:
        json.loads(after)
    except ValueError as e:
        return f"JSON that can't be read: {e}"
    except RecursionError:
        return "JSON that is nested too deeply"
    return ""


def _xml_problem(data: Data, before: str, after: str) -> str:
    from vdsm.common.xml import parse  # not for the root helper, which has JSON only

    try:
        root = parse(after, what="it")
    except AgentError as e:
        return f"XML that can't be used: {e}"
    try:
        old = parse(before, what="the document")
    except AgentError:  # it was not usable before either: any well-formed one is better
        return ""
    if root.tag != old.tag:
        return f"XML whose root element is <{root.tag}> instead of <{old.tag}>"
    if data is Data.DOMAIN:
        for name in ("uuid", "name"):
            was, now = (old.findtext(name) or "").strip(), (root.findtext(name) or "").strip()
            if was != now:
                return f"a domain XML with another {name} ({now!r} instead of {was!r})"
    return ""


def _lines(data: Data, text: str) -> list[str]:
    if data is Data.JSON:
        try:
            return json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False).splitlines()
        except (ValueError, RecursionError):
            return text.splitlines()
    if data is Data.NOTHING or not text.strip():
        return text.splitlines()
    return _BETWEEN_TAGS.sub(_broken, _CLOSINGS.sub("\\1\n", _canonical(text))).splitlines()


def _broken(found: re.Match[str]) -> str:
    return ">\n<" if found[0].startswith(">") else "\n"


def _canonical(text: str) -> str:
    """So that another writer's quotes and order of attributes are no difference, and no secret is shown."""
    from lxml import etree

    from vdsm.common.xml import hide_secrets, parse

    try:
        root = parse(text, what="it")
        hide_secrets(root)
        return etree.tostring(root, method="c14n").decode()
    except (AgentError, etree.C14NError):
        return text

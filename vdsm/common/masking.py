# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets do not leave by the side door: logs, error messages, answers to those below admin.

Two nets. Some texts show by their form that a secret follows: ``passwd='...'``, ``password=...``, ``user:...@host``,
the files that a VM gets as payload. These are hidden wherever a text passes here. And while a call runs, the values
that came with it as secrets are known (`know` sets a context variable, so tasks and threads of the call inherit it) and
hidden whatever form the text has that carries them.

Neither makes it right to write a secret down: they are there for the text that nobody thought of.
"""

from __future__ import annotations

import contextvars
import functools
import json
import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

HIDDEN = "*****"  # as the field writes it
# a shorter one would hide half of every sentence, and hides nothing that can't be guessed
LEAST = 4
# of a long one the beginning is told, too: messages are cut
BEGINNING = 24
MAX_VALUES = 200_000

_NAME = re.compile(
    r"(?:pass(?:word|wd|phrase)|secret|token|keyring|credential|private_?key|_X_)(?!.*(?:id|type|file|path|hash)$)",
    re.I,
)
_SUSPECT = re.compile(r"passw|passphrase|secret|token|keyring|file\b|://", re.I)
_SUSPECT_BYTES = re.compile(_SUSPECT.pattern.encode(), re.I)
# name, then = or : with or without quotes (also those of JSON in JSON), then the value
_GIVEN = re.compile(
    r"""(?P<name>(?:password|passwd|passphrase|secret|token|keyring)\\*["']?\s*[=:]\s*)"""
    r"""(?:(?P<quote>\\*["'])(?P<quoted>.*?)(?P=quote)|(?P<bare>[^\s,;&"'<>{}\[\]\\]+))""",
    re.I | re.S,
)
_PAYLOAD = re.compile(r"(?P<name><(?:[\w-]+:)?file\b[^>]*>)(?P<quoted>[^<]+)(?=</)", re.I)
_ADDRESS = re.compile(r"(?P<name>[a-z][a-z0-9+.-]*://[^\s/:@'\"]+:)(?P<quoted>[^\s/@'\"]+)(?=@)", re.I)
_ELEMENT = re.compile(
    r"(?P<name><(?P<tag>(?:[\w-]+:)?[\w-]*(?:passw(?:or)?d|passphrase|secret|token))(?:\s[^>]*)?>)"
    r"(?P<quoted>[^<]+)(?=</(?P=tag)>)",
    re.I,
)
_FORMS = (_GIVEN, _PAYLOAD, _ELEMENT, _ADDRESS)

_known: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("secrets", default=frozenset())


@functools.lru_cache(1024)
def is_secret(name: str) -> bool:
    """Whether a parameter or key of that name holds a secret."""
    return _NAME.search(name) is not None


def know(secrets: frozenset[str]) -> None:
    """From here on, in this task and in what it starts, these texts are hidden."""
    if secrets:
        _known.set(_known.get() | secrets)


def knows() -> bool:
    """Whether this is a part of a call with secrets."""
    return bool(_known.get())


def hide(text: str) -> str:
    """The text without what is known, or seen by its form, to be secret."""
    for secret in sorted(_known.get(), key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return _hide_forms(text) if _SUSPECT.search(text) else text


def hide_in(value: Any) -> Any:
    """A JSON value whose texts are hidden as by `hide`, and whose members that are secret by name are."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {key: _hide_member(str(key), member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(member) for member in value]
    return value


def is_suspect(encoded: bytes) -> bool:
    """Whether it is worth to look closer: cheap."""
    return _SUSPECT_BYTES.search(encoded) is not None


def secrets_in(value: Any) -> frozenset[str]:
    """The secrets among a call's parameters, in each form in which a text may carry them."""
    found: set[str] = set()
    _collect(value, found)
    return frozenset(form for secret in found if len(secret) >= LEAST for form in _written(secret))


def _hide_member(key: str, member: Any) -> Any:
    if is_secret(key) and isinstance(member, str) and member:
        return HIDDEN
    if is_secret(key) and isinstance(member, list):
        return [HIDDEN if isinstance(one, str) else hide_in(one) for one in member]
    return hide_in(member)


def _hide_forms(text: str) -> str:
    for form in _FORMS:
        text = form.sub(_hidden, text)
    return text


def _hidden(found: re.Match[str]) -> str:
    quote = found.groupdict().get("quote") or ""
    return f"{found['name']}{quote}{HIDDEN}{quote}"


def _collect(value: Any, found: set[str]) -> None:
    left: list[tuple[bool, Any]] = [(False, value)]
    seen = 0
    while left and seen < MAX_VALUES:
        named, one = left.pop()
        seen += 1
        if isinstance(one, str):
            if named:
                found.add(one)
            elif len(one) > LEAST and _SUSPECT.search(one):
                found.update(_given(one))
        elif isinstance(one, dict):
            left.extend((is_secret(key) if isinstance(key, str) else False, member) for key, member in one.items())
        elif isinstance(one, list | tuple):
            left.extend((named, member) for member in one)


def _given(text: str) -> Iterator[str]:
    for form in _FORMS:
        for match in form.finditer(text):
            groups = match.groupdict()
            yield groups["quoted"] or groups.get("bare") or ""


def _written(secret: str) -> Iterator[str]:
    quotes = {'"': "&quot;", "'": "&apos;"}
    for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], escape(secret), escape(secret, quotes)):
        yield form
        if len(form) > 2 * BEGINNING:
            yield form[:BEGINNING]

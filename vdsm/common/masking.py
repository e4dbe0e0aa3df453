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
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.sax.saxutils import escape

HIDDEN = "*****"  # as the field writes it
# a shorter one would hide half of every sentence, and hides nothing that can't be guessed
LEAST = 4
# of a long one the beginning is told, too: messages are cut
BEGINNING = 24
MAX_VALUES = 200_000
MAX_SECRETS = 500
LONGEST_NAME = 64
# of one value: callers may send values of many megabytes, and the loop waits for this
MAX_SEARCHED = 256 << 10

_NAME = re.compile(
    r"(?:pass(?:word|wd|phrase)|secret|token|keyring|credential|private_?key|_X_)(?!.*(?:id|type|file|path|hash)$)",
    re.I,
)
# words without which no text and no name is secret by its form: looked for in whole messages, so as plain words
_WORDS = (
    *("passw", "passphrase", "secret", "token", "keyring", "credential", "private_key", "privatekey", "_x_"),
    *("file", "://"),
)
_WORDS_BYTES = tuple(word.encode() for word in _WORDS)
# Texts are of any length and whoever calls chooses them, so nothing here may look at a stretch of text again for each
# place where a form could begin: what stands between the parts of a form can't hold another beginning.
#
# name, then = or : with or without quotes (also those of JSON in JSON), then the value: bare, or up to the same quote
_GIVEN = re.compile(
    r"""(?:password|passwd|passphrase|secret|token|keyring)\\{0,4}["']?\s{0,8}[=:]\s{0,8}(?P<quote>\\{0,4}["'])?""",
    re.I,
)
_BARE = re.compile(r"""[^\s,;&"'<>{}\[\]\\]+""")
_PAYLOAD = re.compile(r"<(?:[\w-]{1,64}:)?file\b[^<>]*>(?P<value>[^<]+)(?=</)", re.I)
_ADDRESS = re.compile(r"://[^\s/:@'\"]+:(?P<value>[^\s/@'\"]+)(?=@)", re.I)
_ELEMENT = re.compile(
    r"<(?P<tag>(?:[\w-]{1,64}:)?[\w-]{0,64}(?:passw(?:or)?d|passphrase|secret|token))(?:\s[^<>]*)?>"
    r"(?P<value>[^<]+)(?=</(?P=tag)>)",
    re.I,
)

_known: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("secrets", default=frozenset())


def is_secret(name: str) -> bool:
    """Whether a parameter or key of that name holds a secret; of a very long one the beginning decides."""
    return _is_secret(name[:LONGEST_NAME])


@functools.lru_cache(1024)
def _is_secret(name: str) -> bool:
    return _NAME.search(name) is not None


def know(secrets: frozenset[str]) -> None:
    """From here on, in this task and in what it starts, these texts are hidden."""
    if secrets:
        _known.set(_known.get() | secrets)


def outside() -> contextvars.Context:
    """A context that knows none: for what a call happens to begin, and what outlives it and serves others."""
    context = contextvars.copy_context()
    context.run(_known.set, frozenset())
    return context


def hide(text: str) -> str:
    """The text without what is known, or seen by its form, to be secret."""
    for secret in sorted(_known.get(), key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return hide_by_form(text)


def hide_by_form(text: str) -> str:
    """The text without what its form shows to be secret; values that a caller gave as secrets stay."""
    return _hide_forms(text) if _is_suspect(text) else text


def hide_in(value: Any) -> Any:
    """A JSON value whose texts are hidden as by `hide`, and whose members that are secret by name are."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {key: _hide_member(str(key), member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(member) for member in value]
    return value


def hide_in_members(value: Any, names: frozenset[str]) -> Any:
    """A JSON value whose members of these names are hidden as by `hide_in`, at any depth; all else stays."""
    if isinstance(value, dict):
        return {k: hide_in(v) if k in names else hide_in_members(v, names) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in_members(member, names) for member in value]
    return value


def is_suspect(encoded: bytes) -> bool:
    """Whether it is worth to look closer: cheap."""
    lower = encoded.lower()
    return any(word in lower for word in _WORDS_BYTES)


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


def _is_suspect(text: str) -> bool:
    lower = text.lower()
    return any(word in lower for word in _WORDS)


def _hide_forms(text: str) -> str:
    for spans in _FORMS:
        parts: list[str] = []
        end = 0
        for start, stop in spans(text):
            parts += (text[end:start], HIDDEN)
            end = stop
        text = "".join((*parts, text[end:]))
    return text


def _given_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where values stand that follow a name; a quote that nobody closes (messages are cut) goes to the end."""
    done = 0
    for found in _GIVEN.finditer(text):
        start = found.end()
        if found.start() < done:
            continue
        if quote := found["quote"]:
            stop = text.find(quote, start)
            done = stop + len(quote) if stop >= 0 else len(text)
            yield start, (stop if stop >= 0 else len(text))
        elif bare := _BARE.match(text, start):
            done = bare.end()
            yield start, done


def _spans_of(form: re.Pattern[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    return lambda text: (found.span("value") for found in form.finditer(text))


_FORMS = (_given_spans, _spans_of(_PAYLOAD), _spans_of(_ELEMENT), _spans_of(_ADDRESS))


def _collect(value: Any, found: set[str]) -> None:
    left: list[tuple[bool, Any]] = [(False, value)]
    seen = 0
    while left and seen < MAX_VALUES and len(found) < MAX_SECRETS:
        named, one = left.pop()
        seen += 1
        if isinstance(one, str):
            if named:
                found.add(one)
            elif len(one) > LEAST and _is_suspect(part := one[:MAX_SEARCHED]):
                found.update(_given(part))
        elif isinstance(one, dict):
            left.extend((is_secret(key) if isinstance(key, str) else False, member) for key, member in one.items())
        elif isinstance(one, list | tuple):
            left.extend((named, member) for member in one)


def _given(text: str) -> Iterator[str]:
    return (text[start:stop] for spans in _FORMS for start, stop in itertools.islice(spans(text), MAX_SECRETS))


def _written(secret: str) -> Iterator[str]:
    quotes = {'"': "&quot;", "'": "&apos;"}
    for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], escape(secret), escape(secret, quotes)):
        yield form
        if len(form) > 2 * BEGINNING:
            yield form[:BEGINNING]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be said of a script before it runs: its interpreter, its syntax, Python that is too old, modules that are
not there.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from vdsm.common.commands import PATH
from vdsm.hooking import script_shell
from vdsm.hooking.script_imports import missing

_PYTHON_2_CALLS = re.compile(rb"\.(iteritems|itervalues|iterkeys|has_key)\(|\b(unicode|raw_input|xrange)\(")
_LOOKS_LIKE_PYTHON = re.compile(rb"^(import |from \w[\w.]* import )", re.MULTILINE)


@dataclass(frozen=True)
class Problem:
    text: str
    remedy: str
    fatal: bool


def problems(content: bytes, folder: str) -> Iterator[Problem]:
    """``folder``: where the script lies, which its imports see first."""
    if content.startswith(b"\x7fELF"):
        return
    if not content.strip():
        yield Problem("empty: it runs and does nothing", "remove it", fatal=False)
        return
    if content.startswith(b"\xef\xbb\xbf"):
        yield Problem("begins with a byte order mark, which hides the interpreter line", "save it without", fatal=True)
        return
    first = content.split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        python = bool(_LOOKS_LIKE_PYTHON.search(content))
        text = "has no interpreter line, so /bin/sh runs it" + (", but it looks like Python" if python else "")
        yield Problem(text, f"begin it with #!/usr/bin/{'python3' if python else 'sh'}", fatal=python)
        if not python:
            yield from _shell(content, script_shell.PLAIN)
        return
    yield from _interpreter(first)
    if b"python" in first:
        yield from _python(content, _program(first), folder)
    elif not first.endswith(b"\r") and script_shell.is_shell(_program(first)):
        yield from _shell(content, _program(first))


def _program(first: bytes) -> str:
    """The absolute path of the interpreter that the kernel, or env, would run; empty where it finds none."""
    words = first[2:].decode("utf-8", "replace").split()
    if words and os.path.basename(words[0]) == "env":
        named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        return shutil.which(named, path=PATH) or "" if named else ""
    return words[0] if words else ""


def _interpreter(first: bytes) -> Iterator[Problem]:
    if first.endswith(b"\r"):
        yield Problem(
            "has Windows line ends: the kernel looks for an interpreter whose name ends in a carriage return",
            "sed -i 's/\\r$//' FILE",
            fatal=True,
        )
        first = first.rstrip(b"\r")
    try:
        words = shlex.split(first[2:].decode("utf-8", "replace"))
    except ValueError:
        words = first[2:].decode("utf-8", "replace").split()
    if not words:
        yield Problem("its interpreter line names none", "write, for example, #!/usr/bin/python3", fatal=True)
        return
    program = words[0]
    if not program.startswith("/"):
        yield Problem(f"its interpreter {program!r} is not an absolute path", "write the whole path", fatal=True)
    elif not os.access(program, os.X_OK):
        yield Problem(
            f"its interpreter {program} is not on this host", "install it, or mend the first line", fatal=True
        )
    elif os.path.basename(program) == "env":
        named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        if not named or shutil.which(named, path=PATH) is None:
            yield Problem(f"env does not find {named!r} in {PATH}", "install it, or mend the first line", fatal=True)


def _shell(content: bytes, shell: str) -> Iterator[Problem]:
    try:
        broken = script_shell.broken(content, shell)
    except script_shell.NotChecked as e:
        yield Problem(f"its syntax was not checked: {e}", "", fatal=False)
        return
    if broken:
        yield Problem(f"broken shell script, {broken}", f"mend it; {shell} -n FILE tells whether it is", fatal=True)


def _python(content: bytes, interpreter: str, folder: str) -> Iterator[Problem]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except SyntaxError as e:
        old = _is_python_2(e)
        text = f"{'Python 2' if old else 'broken Python'}, line {e.lineno}: {e.msg}"
        yield Problem(text, "port it to Python 3 (2to3 does most of it)" if old else "mend the line", fatal=True)
        return
    except (ValueError, RecursionError, MemoryError) as e:
        yield Problem(f"no Python text: {e}", "", fatal=True)
        return
    for found in _PYTHON_2_CALLS.finditer(content):
        name = (found[1] or found[2]).decode()
        line = content.count(b"\n", 0, found.start()) + 1
        yield Problem(f"line {line} uses {name}, which Python 3 does not have", "port it to Python 3", fatal=False)
    for absent in missing(tree, interpreter, folder):
        when = "so it fails for every VM" if absent.at_start else "where a function needs it"
        yield Problem(
            f"line {absent.line} imports {absent.module}, which {interpreter} does not find, {when}",
            _remedy_for(absent.module),
            fatal=absent.at_start,
        )


def _remedy_for(module: str) -> str:
    if module.split(".")[0] == "vdsm":
        return "of vdsm's own modules only vdsm.hook.hooking is here: take the script away, or port it"
    return "install the package that has it, or take the script away"


def _is_python_2(error: SyntaxError) -> bool:
    message, line = error.msg.lower(), (error.text or "").strip()
    return (
        "missing parentheses in call to" in message
        or "multiple exception types must be parenthesized" in message
        or "leading zeros in decimal integer" in message
        or re.match(r"(print|exec)\b(?!\s*\()|except\s+\w[\w.]*\s*,|raise\s+\w+\s*,", line) is not None
        or "<>" in line
        or "`" in line
    )

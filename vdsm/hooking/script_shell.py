# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a shell script can be parsed, by what the shell itself says (``-n``: it reads all and runs nothing).

Only a shell of the system is asked: the interpreter line is the script's word, and lint runs as root. It gets the text
on its standard input, no start-up file, and a deadline.
"""

from __future__ import annotations

import re
import subprocess

from vdsm.common.commands import PATH

PLAIN = "/bin/sh"
CHECK_S = 5.0
MAX_READ = 1 << 20  # what is longer was not read to its end
_SYSTEM_SHELL = re.compile(r"/(usr/|usr/local/)?bin/(sh|bash|dash|ksh)")
_COMPLAINT = re.compile(r"[^:]*: (?:line )?(\d+): (.*)")


class NotChecked(Exception):
    """Why nothing is known."""


def is_shell(interpreter: str) -> bool:
    return _SYSTEM_SHELL.fullmatch(interpreter) is not None


def broken(content: bytes, interpreter: str) -> str:
    """Where and why ``interpreter`` can't parse it; empty when it can. Raises `NotChecked`."""
    if len(content) >= MAX_READ:
        return ""
    argv = [interpreter, "-n"]
    if interpreter.endswith("bash") and b"extglob" in content:  # which -n does not switch on when it reads so
        argv = [interpreter, "-O", "extglob", "-n"]
    try:
        done = subprocess.run(
            argv,
            input=content,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"PATH": PATH, "LC_ALL": "C"},
            timeout=CHECK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotChecked(f"{interpreter} -n did not end within {CHECK_S:g} s") from None
    except OSError as e:
        raise NotChecked(f"{interpreter}: {e.strerror}") from None
    if done.returncode == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"{interpreter} -n refuses it"]
    found = _COMPLAINT.match(said[0])
    return f"line {found[1]}: {found[2]}" if found else said[0]

# SPDX-License-Identifier: GPL-2.0-or-later
"""``docs/api/errors.md``: every code of the wire, and which errors of this agent have it.

``python -m vdsm.api.errors_page`` writes it; a test fails when page and code differ.
"""

from __future__ import annotations

from vdsm.api import codes

_HEAD = """# Error codes

Written by `make openrpc`. Every code that the field knows: the name on the host's side, the engine's name, what the
engine does on the SPM's channel when it reads it, and the errors of this agent that have it.

| letter | the engine |
|---|---|
| K | takes it for a plain failure |
| F | moves the SPM to another host (a plain failure on a host's own channel) |
| M | suspects the master domain |
| S | forgets who the SPM is |
| N | takes it for trouble of the network: the host may become NonResponsive |
| R | waits: the host starts |
| U | shows "no unicode" |

An error without a code of its own has its verb's default (`vdsm/api/default_codes.py`).

| code | name | engine | does | errors here |
|---|---|---|---|---|
"""


def page() -> str:
    """The page as it is checked in."""
    ours: dict[int, list[str]] = {}
    for kind, code in codes.all_codes().items():
        ours.setdefault(code, []).append(kind.__name__)
    rows = []
    for code, known in codes.table().items():
        engine = "same" if known.engine_name == known.name else known.engine_name or ""
        told = ", ".join(sorted(ours.get(code, [])))
        rows.append(f"| {code} | {known.name or ''} | {engine} | {known.reaction} | {told} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    print(page(), end="")

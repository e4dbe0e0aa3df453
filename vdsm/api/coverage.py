# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the field's API is built: one line for each verb of the contract.

``docs/api/coverage.md`` is made from it (``python -m vdsm.api.coverage``), as is ``vdsm doctor --api``. A test
fails when the page and the code differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from vdsm.api import contract, registry
from vdsm.api.registry import Verbs

_HEAD = """# Verbs: what is built

Written by `make openrpc` from the verbs' code and the contract (`vdsm/api/contract.json`). A verb that is not built
checks the caller's role and its parameters, does nothing, and answers error 44 with its name. *Engine*: the field's
engine calls it. *Role*: the least that the caller must have (docs/access.md). `vdsm doctor --api` shows the same list.
"""


@dataclass(frozen=True)
class Line:
    verb: str
    engine: bool
    role: str
    state: str

    @property
    def kind(self) -> str:
        """built, partial, or not built"""
        return self.state.partition(":")[0]


def lines(verbs: Verbs) -> list[Line]:
    return [Line(name, row.engine, str(verbs[name].role), verbs[name].state) for name, row in contract.rows().items()]


def summary(found: Iterable[Line]) -> str:
    counts: Counter[str] = Counter()
    engine: Counter[str] = Counter()
    for line in found:
        counts[line.kind] += 1
        engine[line.kind] += line.engine
    told = [f"{counts[kind]} {kind} (engine: {engine[kind]})" for kind in ("built", "partial", "not built")]
    return f"{counts.total()} verbs, {engine.total()} of them called by the engine: " + ", ".join(told)


def page(verbs: Verbs) -> str:
    """The page as it is checked in."""
    found = lines(verbs)
    parts = [_HEAD, summary(found) + ".\n"]
    for namespace in dict.fromkeys(line.verb.partition(".")[0] for line in found):
        parts.append(f"## {namespace}\n\n| verb | engine | role | state |\n|---|---|---|---|")
        rows = [line for line in found if line.verb.startswith(namespace + ".")]
        parts.append(
            "\n".join(f"| {line.verb} | {'yes' if line.engine else ''} | {line.role} | {line.state} |" for line in rows)
        )
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(registry.load()), end="")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Random walks over the rules of the model: each uses some of the rules only, so that rare things meet.

Hypothesis finds the smallest example of what is wrong; a walk finds that something is, many times sooner.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

_LENGTHS = (8, 15, 30, 40)
_OFTEN = {"create": 6, "destroy": 2, "verb": 3, "shut_down": 2, "whoever_has_no_trouble_waits_for_nobody": 2}


Step = tuple[str, dict[str, Any]]


def walk(machine: type[RuleBasedStateMachine], seed: int) -> None:
    """One walk; raises what a rule or an invariant of ``machine`` raises."""
    go(machine, steps(machine, seed))


def steps(machine: type[RuleBasedStateMachine], seed: int) -> list[Step]:
    chance = random.Random(seed)
    rules = _rules(machine)
    names = sorted({*chance.sample(sorted(rules), chance.randint(4, len(rules))), "create"})
    weights = [_OFTEN.get(name, 1) for name in names]
    chosen = [*chance.choices(names, weights, k=chance.choice(_LENGTHS)), "all_is_mended"]
    return [(name, {key: chance.choice(values) for key, values in rules[name].items()}) for name in chosen]


def go(machine: type[RuleBasedStateMachine], way: list[Step]) -> None:
    walked: Any = machine()
    try:
        walked.begin()
        for name, how in way:
            getattr(walked, name)(**how)
            walked.nothing_is_wrong()
    finally:
        walked.teardown()


def _rules(machine: type[RuleBasedStateMachine]) -> dict[str, dict[str, list[Any]]]:
    """Name -> argument -> what it may be; all arguments of these rules are samples or booleans."""
    return {
        rule.function.__name__: {key: _values(strategy) for key, strategy in rule.arguments_strategies.items()}
        for rule in machine.setup_state().rules  # type: ignore[attr-defined]
    }


def _values(strategy: Any) -> list[Any]:
    inner = getattr(strategy, "wrapped_strategy", strategy)
    return list(getattr(inner, "elements", (False, True)))

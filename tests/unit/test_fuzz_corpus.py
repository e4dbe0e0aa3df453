# SPDX-License-Identifier: GPL-2.0-or-later
"""What fuzzing found worth keeping, and the seeds of it, through the same targets: no fuzzer is needed."""

from __future__ import annotations

import pytest

from contrib.fuzz.target import KEPT, TARGETS, load


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_do_no_harm(name: str) -> None:
    target = load(name)
    files = sorted((KEPT / name).iterdir())
    assert files
    for file in files:
        try:
            target.run(file.read_bytes())
        except Exception as error:
            error.add_note(f"input: {file}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_do_no_harm(name: str) -> None:
    target = load(name)
    for seed in target.seeds():
        assert len(seed) <= target.max_bytes
        target.run(seed)

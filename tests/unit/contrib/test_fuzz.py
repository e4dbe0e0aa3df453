# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import random
from pathlib import Path

import pytest

from contrib.fuzz import __main__ as command
from contrib.fuzz import campaign, json_forms, keep
from contrib.fuzz.target import TARGETS, Target, load
from vdsm.common.stomp import NotStomp, Parser


def steps(*numbers: int) -> keep.Ways:
    return frozenset(((steps.__code__, number, number), 1) for number in numbers)


def parse(data: bytes) -> None:
    try:
        Parser().feed(data)
    except NotStomp:
        if data == b"x":
            raise


PARSER = Target(parse, seeds=tuple, max_bytes=10)


def test_of_inputs_that_go_the_same_ways_the_smallest_is_kept() -> None:
    assert keep.cover({b"long": steps(1, 2), b"s": steps(1, 2), b"other": steps(3)}) == [b"s", b"other"]


def test_an_input_whose_ways_all_others_go_is_not_kept() -> None:
    assert keep.cover({b"1": steps(1), b"22": steps(2), b"333": steps(1, 2, 3)}) == [b"333"]


def test_kept_files_are_replaced_but_those_that_a_person_named(tmp_path: Path) -> None:
    (tmp_path / "0123456789abcdef").write_bytes(b"old")
    (tmp_path / "cut-command").write_bytes(b"SENDX")
    assert keep.keep(PARSER, [b"SEND\n\n\0"], tmp_path) == 1
    assert {file.read_bytes() for file in tmp_path.iterdir()} == {b"SEND\n\n\0", b"SENDX"}


def test_an_input_that_fails_is_not_kept(tmp_path: Path) -> None:
    assert keep.keep(PARSER, [b"x"], tmp_path) == 0


def test_a_finding_is_kept_by_its_place_with_the_smallest_input(tmp_path: Path) -> None:
    def fail(data: bytes) -> None:
        raise ValueError(len(data))

    findings = campaign.Findings(Target(fail, seeds=tuple, max_bytes=10), tmp_path)
    for data in (b"abc", b"a", b"ab"):
        findings.run(data)
    (file,) = (file for file in tmp_path.iterdir() if file.suffix != ".txt")
    assert file.read_bytes() == b"a"
    assert file.name.startswith("ValueError-test_fuzz.py-")
    assert "ValueError: 1" in file.with_name(f"{file.name}.txt").read_text()


@pytest.mark.parametrize("name", TARGETS)
def test_a_change_is_the_same_for_the_same_seed(name: str) -> None:
    target = load(name)
    if target.mutate is not None:
        for seed in list(target.seeds())[:20]:
            assert target.mutate(seed, random.Random(7)) == target.mutate(seed, random.Random(7))


def test_changes_leave_what_they_take_from_as_it_was() -> None:
    before = repr(json_forms.NASTY)
    rng = random.Random(1)
    value = {"a": [1, {"b": 2}]}
    for _ in range(500):
        json_forms.change(value, rng)
    assert repr(json_forms.NASTY) == before


def test_without_the_fuzzer_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.main() == 2
    assert "make fuzz" in capsys.readouterr().err

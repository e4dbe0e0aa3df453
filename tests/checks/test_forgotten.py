# SPDX-License-Identifier: GPL-2.0-or-later
"""That what is declared and forgotten is seen: the checks of the source, on sources with one such thing each."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from contrib.checks import forgotten, settings_page
from contrib.checks.circles import circle
from contrib.checks.forgotten import TOP
from vdsm import config
from vdsm.api import event_catalogue
from vdsm.hooking.points import POINTS


def tree(text: str) -> dict[Path, ast.Module]:
    return {TOP / "vdsm/it.py": ast.parse(text)}


def publishing(*names: str) -> str:
    return "\n".join(f"events.publish({name}, 'x', {{}})" for name in names)


ALL = publishing(*(f"{row.component!r}, {row.operation!r}" for row in event_catalogue.CATALOGUE))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ALL + "\nevents.publish('virt', 'news', 'x', {})", ": |virt|news| has no row"),
        (ALL + "\nevents.publish(component, 'news', 'x', {})", "must be plain text"),
        ("", "nobody publishes |virt|VM_status|"),
        (ALL, ""),
    ],
)
def test_events(text: str, complaint: str) -> None:
    told = list(forgotten.events(tree(text)))
    assert any(complaint in line for line in told) if complaint else told == []


def test_a_setting_that_no_code_reads() -> None:
    everything = "\n".join(f"settings.{name}" for name in config.Settings.__dataclass_fields__ if name != "ssl")
    assert list(forgotten.settings(tree(everything))) == ["vdsm/config.py: no code reads the setting ssl"]


def test_a_setting_that_no_key_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.OURS, "virt", {})
    everything = "\n".join(f"settings.{name}" for name in config.Settings.__dataclass_fields__)
    told = list(forgotten.settings(tree(everything)))
    assert told == [f"vdsm/config.py: no key of a file sets {name}" for name in ("libvirt_uri", "vm_start_slots")]


def test_hook_points_that_run_and_are_said_not_to_and_the_other_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        name: replace(POINTS[name], wired=wired)
        for name, wired in (("before_vm_start", True), ("after_vm_start", True), ("after_vm_pause", False))
    }
    monkeypatch.setattr(forgotten, "POINTS", rows)
    text = "hooks.run_xml('before_vm_start', xml)\nhooks.run_xml('after_vm_pause', xml)"
    told = sorted(forgotten.hook_points(tree(text)))
    assert [line.split(": ")[1] for line in told] == [
        "after_vm_pause is run, and said not to",
        "after_vm_start is said to run, and no code runs it",
    ]


def test_a_function_that_only_tests_use_and_an_excuse_that_is_no_longer_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("vdsm", "storage", "network", "hooks", "contrib", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "vdsm/it.py").write_text("def used(): pass\ndef lonely(): pass\ndef excused(): pass\nused()\n")
    (tmp_path / "tests/test_it.py").write_text("from vdsm.it import lonely, excused\nlonely()\nexcused()\n")
    (tmp_path / "unused.txt").write_text("# why\n\nvdsm/it.py:excused  a contract\nvdsm/it.py:used  once\n")
    monkeypatch.setattr(forgotten, "TOP", tmp_path)
    monkeypatch.setattr(forgotten, "UNUSED", tmp_path / "unused.txt")
    told = list(forgotten.unused())
    assert [line.split(" ")[0] for line in told] == ["vdsm/it.py:lonely", "contrib/checks/unused.txt:"]
    assert "vdsm/it.py:used" in told[1]


def test_modules_that_import_each_other_over_a_third() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(("name", "page"), [("events.md", event_catalogue.page), ("settings.md", settings_page.page)])
def test_pages_made_from_the_code_are_as_the_code_is(name: str, page) -> None:  # type: ignore[no-untyped-def]
    assert (TOP / "docs" / name).read_text() == page(), "run: make openrpc"


def test_the_page_of_settings_has_every_key() -> None:
    text = settings_page.page()
    for tables in (config.OURS, config.FOREIGN):
        for section, keys in tables.items():
            for key in keys:
                assert f"| `[{section}]` | `{key}` |" in text

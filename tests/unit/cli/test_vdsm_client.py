# SPDX-License-Identifier: GPL-2.0-or-later
"""The field's command without an agent: help of every verb, wrong usage, what a failed connection prints."""

import io
import json
import sys

import pytest

from vdsm.api import contract
from vdsm.cli import vdsm_client


def ended(*arguments):
    with pytest.raises(SystemExit) as end:
        vdsm_client.run(arguments)
    return end.value.code


@pytest.mark.parametrize("verb", sorted(contract.rows()))
def test_help_of_a_verb_names_its_parameters_and_shows_them_as_json(verb, capsys):
    assert ended(*verb.split("."), "-h") == 0
    text = capsys.readouterr().out
    names = list(contract.fields(contract.rows()[verb].params))
    assert all(f" {name}: " in text for name in names)
    if names:
        document = "\n".join(
            line[14:] for line in text[text.index("As JSON:") :].partition("options:")[0].splitlines()[1:]
        )
        assert list(json.loads(document)) == names


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["Host"], "a namespace and a method are needed"),
        ([], "a namespace and a method are needed"),
        (["Host", "getstats"], "invalid choice: 'getstats'"),
        (["VM", "getStats", "vmID"], "'vmID' is no parameter: expected name=value"),
        (["VM", "getStats", "=5"], "'=5' is no parameter"),
        (["-f", "/nonexistent", "VM", "getStats"], "File /nonexistent:"),
        (["-f", "-", "VM", "getStats"], "File - is empty"),
        (["-f", "-", "VM", "getStats", "vmID=1"], "given twice"),
        (["-p", "none", "VM", "getStats"], "invalid int value"),
    ],
)
def test_wrong_usage_ends_with_two(words, reason, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert ended(*words) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(("text", "reason"), [("{", "File -: "), ("[1]", "expected an object"), (" ", "is empty")])
def test_a_file_that_is_no_object_is_wrong_usage(text, reason, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert ended("-f", "-", "VM", "getStats") == 2
    assert reason in capsys.readouterr().err


def test_nobody_there_ends_with_one_and_says_where(capsys):
    assert ended("--insecure", "-a", "127.0.0.1", "-p", "1", "Host", "ping2") == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("vdsm-client: Connection to 127.0.0.1:1 with use_tls=False, timeout=60 failed: ")
    assert "Connection refused" in found.err

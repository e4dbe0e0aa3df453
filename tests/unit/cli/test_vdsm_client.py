# SPDX-License-Identifier: GPL-2.0-or-later
"""The field's command without an agent: help of every verb, wrong usage, what a failed connection prints."""

import functools
import io
import json
import socket
import sys
import threading

import pytest

from vdsm.api import contract
from vdsm.cli import vdsm_client
from vdsm.version import VERSION


def ended(*arguments):
    with pytest.raises(SystemExit) as end:
        vdsm_client.run(arguments)
    return end.value.code


def test_the_version_needs_no_verb(capsys):
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"vdsm-client {VERSION}\n"


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
        (["-p", "none", "VM", "getStats"], "invalid port value: 'none'"),
        (["-p", "0", "VM", "getStats"], "invalid port value: '0'"),
        (["-p", "65536", "VM", "getStats"], "invalid port value: '65536'"),
        (["--timeout", "inf", "VM", "getStats"], "invalid seconds value: 'inf'"),
        (["--timeout", "nan", "VM", "getStats"], "invalid seconds value: 'nan'"),
        (["--timeout", "-1", "VM", "getStats"], "invalid seconds value: '-1'"),
        (["--timeout", "0", "VM", "getStats"], "invalid seconds value: '0'"),
        (["VM", "getStats", "vmID=\udcff"], "VM.getStats can't be called with text that is not Unicode"),
        (["VM", "getStats", "\udcff=1"], "VM.getStats can't be called with text that is not Unicode"),
        (["--flow-id", "\udcff", "VM", "getStats"], "flow id '\\udcff': it is not printable"),
    ],
)
def test_wrong_usage_ends_with_two(words, reason, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert ended(*words) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "File -: "),
        ("[1]", "expected an object"),
        (" ", "is empty"),
        ('{"vmID": ' + "[" * 100_000 + "]" * 100_000 + "}", "File -: it is nested too deep"),
        ('{"vmID": "\\ud800"}', "text that is not Unicode"),
    ],
    ids=["broken", "a list", "empty", "deep", "a lone surrogate"],
)
def test_a_file_that_is_no_call_s_parameters_is_wrong_usage(text, reason, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert ended("-f", "-", "VM", "getStats") == 2
    assert reason in capsys.readouterr().err


def test_nobody_there_ends_with_one_and_says_where(capsys):
    assert ended("--insecure", "-a", "127.0.0.1", "-p", "1", "Host", "ping2") == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("vdsm-client: Connection to 127.0.0.1:1 with use_tls=False, timeout=60 failed: ")
    assert "Connection refused" in found.err


@pytest.mark.parametrize("host", ["a..b", "a" * 70])
def test_what_is_no_address_ends_with_one(host, capsys):
    assert ended("--insecure", "-a", host, "Host", "ping2") == 1
    assert "that is no address" in capsys.readouterr().err


@pytest.fixture
def port():
    """Of somebody who talks, but not STOMP."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]

        def talk():
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                connection.recv(65536)
                while connection.recv(65536):
                    pass

        talking = threading.Thread(target=talk)
        talking.start()
        yield number
        talking.join()


def test_a_peer_that_is_no_agent_ends_with_one(port, capsys):
    assert ended("--insecure", "-a", "127.0.0.1", "-p", str(port), "Host", "ping2") == 1
    assert "Not a STOMP frame" in capsys.readouterr().err


def test_an_answer_too_deep_to_be_shown_ends_with_one(capsys, monkeypatch):
    async def answer(*_):
        return functools.reduce(lambda inner, _: [inner], range(5000), [])

    monkeypatch.setattr(vdsm_client, "_call", answer)
    assert ended("--insecure", "Host", "ping2") == 1
    assert "nested too deep" in capsys.readouterr().err

# SPDX-License-Identifier: GPL-2.0-or-later
import asyncio
import contextvars
import json
import logging

import pytest

from storage.flights import Flights
from vdsm.common import logs, masking
from vdsm.common.events import Events
from vdsm.hooking import process
from vdsm.virt.states import ExitReason, exit_for

SECRET = "Sw0rdfish-5%'\"<&ö\\"


@pytest.mark.parametrize(
    "text",
    [
        "<graphics type='vnc' passwd='swordfish' passwdValidTo='2030-01-01T00:00:00'/>",
        '<graphics passwd="swordfish"/>',
        json.dumps({"xml": '<graphics passwd="swordfish"/>'}),
        json.dumps({"more": json.dumps({"password": "swordfish"})}),
        "mount -t cifs -o username=me,password=swordfish,ro //server/share /mnt",
        "mount -t ceph -o name=admin,secret=swordfish mon:/ /mnt",
        "{'password': 'swordfish', 'user': 'me'}",
        "<auth><username>me</username><password>swordfish</password></auth>",
        "it said: Password: swordfish",
        "esx://me:swordfish@host.example/dc",
        "<ovirt-vm:payload><ovirt-vm:file path='user-data'>swordfish</ovirt-vm:file></ovirt-vm:payload>",
    ],
)
def test_a_text_that_shows_by_its_form_that_a_secret_follows_is_hidden(text):
    hidden = masking.hide(text)
    assert "swordfish" not in hidden
    assert masking.HIDDEN in hidden


@pytest.mark.parametrize(
    "text",
    [
        "Parameter 'password' is invalid: it is required (got nothing)",
        "<graphics passwdValidTo='2030-01-01T00:00:00'/>",
        "<secret type='ceph' uuid='6a3b1f0e-0000-4000-8000-000000000001'/>",
        "file:///usr/share/vdsm",
        "Volume 5 is gone",
    ],
)
def test_a_text_without_a_secret_stays_as_it_is(text):
    assert masking.hide(text) == text


def test_what_stands_beside_a_secret_stays():
    assert masking.hide("-o user=me,password=swordfish,ro") == "-o user=me,password=*****,ro"


@pytest.mark.parametrize("name", ["password", "_X_tpmdata", "auth_password", "passwd", "authToken", "keyring"])
def test_names_that_hold_secrets_are_known(name):
    assert masking.is_secret(name)


@pytest.mark.parametrize("name", ["hostdevPassthrough", "secret_uuid", "tokenType", "vmID", "username", "passwordHash"])
def test_names_that_hold_none_are_not(name):
    assert not masking.is_secret(name)


@pytest.mark.parametrize(
    "parameters",
    [
        {"password": SECRET},
        {"connectionParams": [{"id": "x", "password": SECRET}]},
        {"secrets": [{"uuid": "6a3b1f0e-0000-4000-8000-000000000001", "password": SECRET}]},
        ["6a3b1f0e-0000-4000-8000-000000000001", {"deep": {"deeper": [{"auth_password": SECRET}]}}],
        {"passwords": [SECRET]},
    ],
)
@pytest.mark.parametrize("form", [str, repr, json.dumps, lambda text: text.replace("&", "&amp;").replace("<", "&lt;")])
def test_a_secret_of_a_call_is_hidden_in_any_form(parameters, form):
    def call():
        masking.know(masking.secrets_in(parameters))
        return masking.hide(f"it failed with {form(SECRET)} in it")

    assert "Sw0rdfish" not in contextvars.copy_context().run(call)


def test_the_beginning_of_a_long_secret_is_hidden_too():
    def call():
        masking.know(masking.secrets_in({"_X_tpmdata": "swordfish" * 1000}))
        return masking.hide("it begins with " + ("swordfish" * 1000)[:40])

    assert "swordfishswordfish" not in contextvars.copy_context().run(call)


async def test_tasks_and_threads_of_a_call_hide_what_it_knows_and_others_do_not():
    async def call():
        masking.know(frozenset({"swordfish"}))
        later = asyncio.get_running_loop().create_task(asyncio.to_thread(masking.hide, "a swordfish"))
        return await later

    assert await asyncio.get_running_loop().create_task(call()) == "a *****"
    assert masking.hide("a swordfish") == "a swordfish"


def test_members_of_answers_are_hidden_by_name_and_by_form():
    shown = masking.hide_in({"password": "a", "list": ["passwd='swordfish'"], "secret": ["b", {"c": "d"}], "n": 5})
    assert shown == {"password": "*****", "list": ["passwd='*****'"], "secret": ["*****", {"c": "d"}], "n": 5}


def test_a_log_line_and_its_traceback_hide_secrets_and_are_no_lines_of_their_own(tmp_path):
    before = logging.getLogger().handlers[:], logging.getLogger().level
    running = logs.setup(path=str(tmp_path / "log"))
    try:

        def call():
            masking.know(frozenset({"swordfish"}))
            try:
                raise ValueError("swordfish\n2030-01-01 00:00:00 INFO vdsm all is well")
            except ValueError:
                logging.getLogger("vdsm").exception("it was swordfish, passwd='other'")

        contextvars.copy_context().run(call)
    finally:
        running.stop()
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    written = (tmp_path / "log").read_text()
    assert "Traceback" in written
    assert "swordfish" not in written
    assert "other" not in written
    assert not any(line.startswith("2030") for line in written.splitlines())


async def test_an_event_of_a_call_hides_what_the_call_knows():
    events = Events()
    told = events.subscribe("test")

    async def call():
        masking.know(frozenset({"swordfish"}))
        events.publish("virt", "VM_status", "x", {"x": {"exitMessage": "it said swordfish"}})

    await asyncio.get_running_loop().create_task(call())
    assert (await anext(told)).params["x"] == {"exitMessage": "it said *****"}


@pytest.mark.parametrize("word", ["Down", "WaitForLaunch", "6a3b1f0e-0000-4000-8000-000000000001", "1234567"])
async def test_a_secret_that_is_a_word_of_ours_damages_no_event(word):
    events = Events()
    told = events.subscribe("test")
    params = {word: {"status": word, "hash": [word], "exitMessage": f"it said {word}"}}

    async def call():
        masking.know(masking.secrets_in({"password": word}))
        events.publish("virt", "VM_status", word, params)

    await asyncio.get_running_loop().create_task(call())
    event = await anext(told)
    assert event.unique_id == word
    assert event.params[word] == {"status": word, "hash": [word], "exitMessage": "it said *****"}


async def test_what_serves_others_too_does_not_hide_what_one_call_knew():
    flights, joined, others = Flights(), asyncio.Event(), asyncio.Event()

    async def begin():
        await others.wait()
        return masking.hide("a swordfish")

    async def call():
        masking.know(frozenset({"swordfish"}))
        joined.set()
        return await flights.join("domain", begin)

    first = asyncio.ensure_future(call())
    await joined.wait()
    second = asyncio.ensure_future(flights.join("domain", begin))
    others.set()
    assert await asyncio.gather(first, second) == ["a swordfish", "a swordfish"]


async def test_a_script_s_words_are_hidden_where_they_show_a_secret(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho \"<graphics passwd='swordfish'/>\" >&2\n")
    script.chmod(0o755)
    ended = await process.run_script(str(script), env={}, timeout_s=5.0)
    assert ended.stderr == "<graphics passwd='*****'/>\n"


def test_why_a_vm_ended_is_told_without_its_secrets():
    assert exit_for(ExitReason.GENERIC_ERROR, "passwd='swordfish' is wrong").message == "passwd='*****' is wrong"


N = 400_000
HOSTILE = {
    "one word": "a" * N + " file ",
    "quotes that nobody closes": "password='" * (N // 10),
    "quotes with backslashes": "".join("password=%s'" % ("\\" * (n % 5)) for n in range(N // 12)),
    "tags that nobody closes": "<file " * (N // 6) + "<password " * (N // 10),
    "elements that never end": "<password>" * (N // 10) + "<file>" * (N // 6),
    "addresses without a host": "://a:b" * (N // 6) + "://" + ":" * N,
    "names without values": "password" * (N // 8) + ("password" + " " * 8) * (N // 16),
    "prefixes": "<" + "a-" * (N // 2) + ("<" + "a" * 63 + ":") * (N // 65) + " file",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_takes_longer_than_its_length(text):
    """A caller chooses the text: where a look costs its length squared, these keep the loop for minutes."""
    masking.secrets_in({"x": text, text: "value"})
    masking.hide(text)


def test_a_quote_that_nobody_closes_hides_the_rest():
    assert masking.hide("failed: password='swordfish and") == "failed: password='*****"


def test_a_caller_does_not_blank_its_own_audit_line(tmp_path):
    before = logging.getLogger().handlers[:], logging.getLogger().level
    running = logs.setup(path=str(tmp_path / "log"))

    def call():
        masking.know(masking.secrets_in({"token": ["VM.destroy", "operator-7"]}))
        logging.getLogger(logs.AUDIT).warning("VM.destroy by operator-7, password=swordfish")
        logging.getLogger("vdsm.test").warning("VM.destroy by operator-7")

    try:
        contextvars.copy_context().run(call)
    finally:
        running.stop()
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    audited, other = (tmp_path / "log").read_text().splitlines()
    assert audited.endswith("VM.destroy by operator-7, password=*****")
    assert "operator-7" not in other


def test_of_a_huge_value_the_beginning_is_searched():
    """The loop waits for it: a caller may send many megabytes in each call."""
    text = "password=swordfish " + "x" * masking.MAX_SEARCHED + " password=trout"
    assert masking.secrets_in({"x": text}) == {"swordfish"}

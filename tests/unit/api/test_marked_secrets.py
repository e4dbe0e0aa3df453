# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verb of the contract is called with a marked value as each of its secrets; the mark is found nowhere.

Nowhere: in no answer to anybody below admin, in no error, log line, audit line or traceback, in no event, no figure
and no file that the agent wrote. Admins, too, see it in no error. Each verb is called as it is declared, then with
something wrong beside the secret, so that errors are made that quote; then with a defect in the verb, so that a
traceback is.
"""

import dataclasses
import functools
import json
import logging
import os

import pytest
from msgspec import inspect

from contrib.lab.wrong_input import sample
from vdsm.api import registry
from vdsm.api.roles import Identity, Role
from vdsm.common import logs, metrics
from vdsm.common.errors import AgentError
from vdsm.common.masking import is_secret
from vdsm.rpc import shown
from vdsm.rpc.dispatcher import ENGINE, OWN, Caller, Dispatcher

MARK = "S3cr3tMark"
ID = "6a3b1f0e-0000-4000-8000-000000000001"
XML = (
    f"<domain type='qemu'><name>vm</name><uuid>{ID}</uuid><memory>1024</memory><os><type>hvm</type></os>"
    "<metadata xmlns:ovirt-vm='http://ovirt.org/vm/1.0'><ovirt-vm:vm><ovirt-vm:payload>"
    f"<ovirt-vm:file path='openstack/latest/user_data'>{MARK}1</ovirt-vm:file></ovirt-vm:payload>"
    "</ovirt-vm:vm></metadata>"
    f"<devices><graphics type='vnc' passwd='{MARK}2' passwdValidTo='2030-01-01T00:00:00'/>"
    f'<graphics type="spice" passwd="{MARK}3"/></devices></domain>'
)
OPTIONS = f"rw,username=me,password={MARK}4,secret={MARK}5"
VERBS = registry.load()


def kinds(info):
    """The type itself, and what stands behind its wrapping."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    return list(info.types) if isinstance(info, inspect.UnionType) else [info]


def marked(info, name):
    """A value of the type with a mark wherever a secret may stand in it."""
    for kind in kinds(info):
        bare = kind.type if isinstance(kind, inspect.Metadata) else kind
        if isinstance(bare, inspect.StructType):
            return {field.encode_name: marked(field.type, field.encode_name) for field in bare.fields}
        if isinstance(bare, inspect.ListType):
            return [marked(bare.item_type, name)]
        if isinstance(bare, inspect.StrType) and "uuid" not in str(kind) and (text := _text(name)):
            return text
        if isinstance(bare, inspect.DictType):
            if isinstance(bare.value_type, inspect.AnyType):
                return {"password": MARK, "data": {"keyring": MARK, "list": [f"passwd='{MARK}'"]}}
            key = ID if "uuid" in str(bare.key_type) else "password"
            return {key: marked(bare.value_type, key)}
    return True if any(isinstance(kind, inspect.BoolType) for kind in kinds(info)) else sample(info)


def _text(name):
    if is_secret(name):
        return MARK
    if "xml" in name.lower():
        return XML
    if "opt" in name.lower() or name.lower() in ("spec", "connection", "uri", "message"):
        return OPTIONS if name.lower() != "uri" else f"esx://me:{MARK}@host/dc"
    return ""


def parameters(verb):
    info = inspect.type_info(VERBS[verb].params)
    return {field.encode_name: marked(field.type, field.encode_name) for field in info.fields}


class Refused(AgentError):
    """What verbs make of what they were given and of what programs said."""

    text: str
    msg = "It was refused: {self.text}"
    remedy = "Do not send {self.text}"


async def refuses(call, params):
    logging.getLogger("vdsm.test").warning("called with %r", params)
    try:
        raise ValueError(f"libvirt said {params!r}")
    except ValueError as e:
        raise Refused(repr(params)) from e


async def breaks(call, params):
    raise RuntimeError(f"a defect with {params!r}")


@pytest.fixture
def written(tmp_path):
    """The process's log, in a file; called, it is written to the end."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    running = logs.setup("DEBUG", str(tmp_path / "agent.log"))
    stopped = functools.cache(running.stop)
    yield stopped
    stopped()
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def found_in(folder):
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                if MARK.encode() in file.read():
                    found.append(os.path.join(place, name))
    return found


ROLES = [Role.READER, Role.OPERATOR, Role.PEER, Role.ADMIN]


async def test_a_marked_secret_is_found_nowhere(api, tmp_path, written):
    events = api.agent.events.subscribe("test", max_queue=100_000)
    dispatchers = [
        api.dispatcher,
        *(
            Dispatcher(
                api.agent, {name: dataclasses.replace(entry, run=body, result=None) for name, entry in VERBS.items()}
            )
            for body in (refuses, breaks)
        ),
    ]
    told = []
    for verb in sorted(VERBS):
        good = parameters(verb)
        for params in (
            good,
            {**good, "noSuchName": OPTIONS},
            {**good, "vmID": 5, "storagedomainID": 5},
            list(good.values()),
        ):
            message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": verb, "params": params}).encode()
            for dispatcher in dispatchers:
                for role in ROLES:
                    policy = ENGINE if role is Role.ADMIN else OWN
                    reply = await dispatcher.answer(message, Caller(Identity(str(role), role), "test", policy))
                    if MARK.encode() in reply and (role is not Role.ADMIN or b'"error"' in reply):
                        told.append((verb, role, reply))
    events.close()
    async for event in events:
        if MARK.encode() in (shown.event(event, Role.READER) or b""):
            told.append(event)
    written()
    assert told == []
    assert MARK not in metrics.render().decode()
    assert found_in(tmp_path) == []


async def test_the_log_of_that_run_was_one(api, tmp_path, written):
    """The other test would pass with a log that nobody writes."""
    table = {"VM.setTicket": dataclasses.replace(VERBS["VM.setTicket"], run=refuses)}
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "VM.setTicket", "params": parameters("VM.setTicket")})
    dispatcher = Dispatcher(api.agent, table)
    reply = json.loads(await dispatcher.answer(message.encode(), Caller(Identity("me", Role.ADMIN), "test")))
    written()
    assert "It was refused" in reply["error"]["message"]
    text = (tmp_path / "agent.log").read_text()
    assert "called with" in text
    assert "****" in text
    assert MARK not in text


@pytest.mark.parametrize("role", [Role.READER, Role.OPERATOR, Role.PEER])
async def test_an_answer_that_has_secrets_has_none_for_those_below_admin(api, role):
    async def dump(call, params):
        return {ID: XML, "more": [{"password": MARK}]}

    table = {"Host.dumpxmls": dataclasses.replace(VERBS["Host.dumpxmls"], run=dump)}
    asked = b'{"jsonrpc":"2.0","id":1,"method":"Host.dumpxmls"}'
    answers = {
        who: await Dispatcher(api.agent, table).answer(asked, Caller(Identity("x", who), "test"))
        for who in (role, Role.ADMIN)
    }
    assert MARK.encode() not in answers[role]
    assert b"passwdValidTo" in answers[role]
    assert MARK.encode() in answers[Role.ADMIN]


def test_every_parameter_that_the_contract_calls_secret_is_marked():
    """So that a new one is not forgotten by its name."""

    def secrets(info):
        for kind in kinds(info):
            bare = kind.type if isinstance(kind, inspect.Metadata) else kind
            if isinstance(bare, inspect.StructType):
                for field in bare.fields:
                    plain = not any(isinstance(k, inspect.StructType | inspect.ListType) for k in kinds(field.type))
                    if plain and "'wire': 'secret'" in str(field.type):
                        yield field.encode_name
                    yield from secrets(field.type)
            elif isinstance(bare, inspect.ListType):
                yield from secrets(bare.item_type)

    names = {name for verb in VERBS for name in secrets(inspect.type_info(VERBS[verb].params))}
    assert len(names) > 2
    assert [name for name in names if not is_secret(name)] == []

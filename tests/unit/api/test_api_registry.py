# SPDX-License-Identifier: GPL-2.0-or-later
"""The registry of the real API: documented, typed, and equal to the document that is checked in."""

import importlib
import json
import pathlib
import pkgutil
import re

import pytest

from vdsm.api import codes, openrpc, registry
from vdsm.api.codes import all_codes, code_of
from vdsm.api.errors import MAX_MESSAGE, to_wire
from vdsm.api.roles import Role
from vdsm.api.types import NoParams
from vdsm.common.errors import AgentError, RemoteError
from vdsm.common.jobs import NoSuchJob

ROOT = pathlib.Path(__file__).parents[3]
VERBS = registry.load()


def test_document_that_is_checked_in_equals_the_code():
    path = ROOT / "docs" / "api" / f"openrpc-{openrpc.API_VERSION}.json"
    assert path.read_bytes() == openrpc.text(VERBS), f"run: python -m vdsm.api.openrpc > {path.relative_to(ROOT)}"


def test_document_resolves_within_itself():
    document = json.loads(openrpc.text(VERBS))
    schemas = document["components"]["schemas"]
    references = re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document))
    assert set(references) <= set(schemas)
    assert [method["name"] for method in document["methods"]] == sorted(VERBS)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_verb_is_documented(name):
    assert re.fullmatch(r"[A-Za-z]+\.[A-Za-z0-9_]+", name)
    assert len(VERBS[name].documentation) > 15


def test_verb_needs_typed_parameters_and_result():
    async def untyped(call, params):
        return None

    with pytest.raises(TypeError, match=r"Host\.untyped"):
        registry.verb("Host.untyped", role=Role.READER, into={})(untyped)


def test_name_is_taken_once():
    async def ping(call: None, params: NoParams) -> None:
        return None

    table = {}
    registry.verb("Host.x", role=Role.READER, into=table)(ping)
    with pytest.raises(ValueError, match=r"Host\.x"):
        registry.verb("Host.x", role=Role.READER, into=table)(ping)


def test_codes_fit_the_wire():
    for kind, code in all_codes().items():
        assert issubclass(kind, AgentError)
        assert -32700 <= code < 5000, kind
        assert code != 0, kind


def test_error_has_one_code():
    told = {}
    for module in pkgutil.iter_modules(codes.__path__, codes.__name__ + "."):
        for kind, code in importlib.import_module(module.name).CODES.items():
            assert told.setdefault(kind, code) == code, f"{kind} has another code in {module.name}"


def test_subclass_has_its_ancestors_code():
    class NoSuchCopyJob(NoSuchJob):
        pass

    assert code_of(NoSuchCopyJob) == 66


def test_error_of_another_process_that_was_written_for_people_passes():
    assert to_wire(RemoteError("storage.errors:LostDomain", "Domain 5 is lost"), "X.y").message == "Domain 5 is lost"


def test_defect_of_another_process_does_not_pass():
    wire = to_wire(RemoteError("ValueError", "ValueError: the key is swordfish"), "X.y")
    assert wire.code == -32603
    assert "swordfish" not in wire.message


def test_long_message_is_cut():
    assert len(to_wire(RemoteError("a:B", "x" * 100_000), "X.y").message) <= MAX_MESSAGE + 1

# SPDX-License-Identifier: GPL-2.0-or-later
"""The API as an OpenRPC document, made from the verbs' types and the contract.

The document is checked in as ``docs/api/openrpc-<version>.json`` (``python -m vdsm.api.openrpc`` prints it), and
served by ``rpc.discover``. A test fails when code and document differ: the API does not change by accident.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vdsm.api import contract, contract_schema, registry
from vdsm.api.registry import Verb, Verbs

OPENRPC = "1.3.2"
API_VERSION = "0.1"
_REF = "#/components/schemas/{name}"


def document(verbs: Verbs) -> dict[str, Any]:
    ordered = [verbs[name] for name in sorted(verbs)]
    built = [entry for entry in ordered if entry.run is not None]
    ours = [entry for entry in built if entry.name not in contract.rows()]
    schemas, types = msgspec.json.schema_components(
        [entry.params for entry in built] + [entry.result for entry in ours], ref_template=_REF
    )
    own = [schema["$ref"].rpartition("/")[2] for schema in schemas[: len(built)]]
    parts = {entry.name: types[name] for entry, name in zip(built, own, strict=True)}
    results = {entry.name: schema for entry, schema in zip(ours, schemas[len(built) :], strict=True)}
    methods = [_method(entry, parts.get(entry.name), results.get(entry.name, {})) for entry in ordered]
    shared = {name: types[name] for name in types if name not in own}
    told = [method["result"] for method in methods]
    told += [method["params"] for method in methods if method["name"] not in parts]
    named = contract_schema.components(told)
    if clash := named.keys() & shared.keys():
        raise ValueError(f"types of the contract and of the code share the names {sorted(clash)}")
    return {
        "openrpc": OPENRPC,
        "info": {"title": "Host agent", "version": API_VERSION, "license": {"name": "GPL-2.0-or-later"}},
        "methods": methods,
        "components": {"schemas": dict(sorted((shared | named).items()))},
    }


def _method(entry: Verb, params: dict[str, Any] | None, result: dict[str, Any]) -> dict[str, Any]:
    """``params``: the schema of a built verb's parameters. Results are the contract's: it knows more than the code."""
    row = contract.rows().get(entry.name)
    summary, _, description = entry.documentation.partition("\n")
    method: dict[str, Any] = {
        "name": entry.name,
        "summary": summary,
        "paramStructure": "either",
        "params": _parameters(params) if params is not None or row is None else contract_schema.parameters(row.params),
        "result": {"name": "result", "schema": _result(entry, row, result)},
        "x-kind": entry.kind,
        "x-role": str(entry.role),
        "x-state": entry.state,
    }
    if description.strip():
        method["description"] = description.strip()
    return method


def _parameters(params: dict[str, Any] | None) -> list[dict[str, Any]]:
    known = params or {}
    required = set(known.get("required", ()))
    return [
        {"name": name, "required": name in required, "schema": schema}
        for name, schema in known.get("properties", {}).items()
    ]


def _result(entry: Verb, row: contract.Row | None, result: dict[str, Any]) -> dict[str, Any]:
    if row is None:
        return {"const": True} if entry.result is type(None) else result
    return {"const": True} if row.result == "none" else contract_schema.schema(row.result)


def text(verbs: Verbs) -> bytes:
    """The document as it is checked in."""
    return msgspec.json.format(msgspec.json.encode(document(verbs), order="sorted"), indent=2) + b"\n"


if __name__ == "__main__":
    import sys

    sys.stdout.buffer.write(text(registry.load()))

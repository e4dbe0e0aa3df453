# SPDX-License-Identifier: GPL-2.0-or-later
"""The API as an OpenRPC document, made from the verbs' types.

The document is checked in as ``docs/api/openrpc-<version>.json`` (``python -m vdsm.api.openrpc`` prints it), and
served by ``rpc.discover``. A test fails when code and document differ: the API does not change by accident.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vdsm.api import registry
from vdsm.api.registry import Verb, Verbs

OPENRPC = "1.3.2"
API_VERSION = "0.1"
_REF = "#/components/schemas/{name}"


def document(verbs: Verbs) -> dict[str, Any]:
    ordered = [verbs[name] for name in sorted(verbs)]
    results = [entry.result for entry in ordered]
    schemas, components = msgspec.json.schema_components(
        [entry.params for entry in ordered] + results, ref_template=_REF
    )
    methods = []
    for entry, params, result in zip(ordered, schemas, schemas[len(ordered) :], strict=False):
        methods.append(_method(entry, components[params["$ref"].rpartition("/")[2]], result))
    own = {schema["$ref"].rpartition("/")[2] for schema in schemas[: len(ordered)]}
    return {
        "openrpc": OPENRPC,
        "info": {"title": "Host agent", "version": API_VERSION, "license": {"name": "GPL-2.0-or-later"}},
        "methods": methods,
        "components": {"schemas": {name: components[name] for name in sorted(components) if name not in own}},
    }


def _method(entry: Verb, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    required = set(params.get("required", ()))
    summary, _, description = entry.documentation.partition("\n")
    method: dict[str, Any] = {
        "name": entry.name,
        "summary": summary,
        "paramStructure": "either",
        "params": [
            {"name": name, "required": name in required, "schema": schema}
            for name, schema in params.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": {"const": True} if entry.result is type(None) else result},
        "x-kind": entry.kind,
        "x-role": str(entry.role),
    }
    if description.strip():
        method["description"] = description.strip()
    return method


def text(verbs: Verbs) -> bytes:
    """The document as it is checked in."""
    return msgspec.json.format(msgspec.json.encode(document(verbs), order="sorted"), indent=2) + b"\n"


if __name__ == "__main__":
    import sys

    sys.stdout.buffer.write(text(registry.load()))

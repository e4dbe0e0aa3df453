# SPDX-License-Identifier: GPL-2.0-or-later
"""``vdsm-client``: the field's command for calling verbs, for scripts and habits that know it.

Options, output and exit codes are that command's: the result as JSON (four spaces, sorted keys) on standard output;
0 done, 1 any failure of the call, 2 wrong usage. Values of ``name=value`` travel as text, as they always did: the agent
takes numbers and booleans as text. For people there is ``vdsm call``.

Verbs come from the contract (vdsm/api/contract.json), so ``-h`` works without an agent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from vdsm.api import contract
from vdsm.cli import numbers
from vdsm.cli.exits import ending_quietly
from vdsm.client import Client, ClientError, RpcError, Unsendable, messages
from vdsm.client import tls as client_tls
from vdsm.common import logs
from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths
from vdsm.version import VERSION

PROGRAM = "vdsm-client"
FAILED = 1
PORT = 54321
TIMEOUT_S = 60.0
DEPTH = 4  # of structures within structures, in the help's example


def run(arguments: Sequence[str] | None = None) -> None:
    with ending_quietly():
        _run(arguments)


def _run(arguments: Sequence[str] | None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(given)
    chosen = parser.parse_args(given)
    if not getattr(chosen, "method", None):
        parser.error("a namespace and a method are needed")
    verb = f"{chosen.namespace}.{chosen.method}"
    try:
        params = _params(chosen)
        # what can't be sent is wrong usage, whether or not somebody is there
        messages.request(verb, 0, params, chosen.flow_id)
    except (_Usage, Unsendable) as e:
        parser.error(str(e))
    try:
        shown = json.dumps(asyncio.run(_call(chosen, verb, params)), indent=4, sort_keys=True)
    except _Failed as e:
        _fail(str(e))
    except RecursionError:
        _fail(f"Command {verb}: what is to be shown is nested too deep")
    except KeyboardInterrupt:
        _fail("interrupted")
    print(shown)


class _Usage(AgentError):
    reason: str
    msg = "{self.reason}"


class _Failed(AgentError):
    reason: str
    msg = "{self.reason}"


async def _call(chosen: argparse.Namespace, verb: str, params: dict[str, Any]) -> Any:
    where = f"{chosen.host}:{chosen.port} with use_tls={chosen.use_tls}, timeout={chosen.timeout:g}"
    try:
        context = client_tls.context(client_tls.own(Paths().pki)) if chosen.use_tls else None
        async with Client.stomp(chosen.host, chosen.port, context) as client:
            with logs.flow(chosen.flow_id):
                return await client.call(verb, params, timeout_s=chosen.timeout)
    except RpcError as e:
        reason = f"Command {verb} with args {_shown(verb, params)} failed:\n(code={e.code}, message={e.message})"
        raise _Failed(reason) from None
    except ClientError as e:
        remedy = f". {e.remedy}" if isinstance(e, client_tls.NoIdentity) else ""
        raise _Failed(f"Connection to {where} failed: {e}{remedy}") from None


def _params(chosen: argparse.Namespace) -> dict[str, Any]:
    words: list[str] = chosen.words
    if words and chosen.file is not None:
        raise _Usage(f"Parameters are given twice: {' '.join(words)!r} and file {chosen.file!r}")
    if chosen.file is not None:
        return _from_file(chosen.file)
    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise _Usage(f"{word!r} is no parameter: expected name=value")
        found[name] = value
    return found


def _from_file(name: str) -> dict[str, Any]:
    try:
        if name == "-":
            text = sys.stdin.read()
        else:
            with open(name, encoding="utf-8") as file:
                text = file.read()
        if not text.strip():
            raise _Usage(f"File {name} is empty")
        found = json.loads(text)
    except (OSError, ValueError) as e:
        raise _Usage(f"File {name}: {e}") from None
    except RecursionError:
        raise _Usage(f"File {name}: it is nested too deep") from None
    if not isinstance(found, dict):
        raise _Usage(f"File {name}: expected an object with the parameters, got {type(found).__name__}")
    return found


def _shown(verb: str, params: dict[str, Any]) -> dict[str, Any]:
    secret = {name for name, (kind, _) in contract.fields(contract.rows()[verb].params).items() if kind == "secret"}
    return {name: "********" if name in secret else value for name, value in params.items()}


def _fail(reason: str) -> NoReturn:
    sys.stderr.write(f"{PROGRAM}: {reason}\n")
    sys.exit(FAILED)


# -- the parser; only the named namespace's methods are put into it


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Call a verb of an agent over its port.",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")
    parser.add_argument("-a", "--host", default="localhost", help="address of the host (default localhost)")
    parser.add_argument("-p", "--port", default=PORT, type=numbers.port, help=f"port (default {PORT})")
    parser.add_argument(
        *("--insecure", "--unsecure"), dest="use_tls", action="store_false", help="without TLS: for reading only"
    )
    parser.add_argument("--timeout", default=TIMEOUT_S, type=numbers.seconds, help=f"seconds (default {TIMEOUT_S:g})")
    parser.add_argument("-f", "--file", help="JSON file with the parameters; - is standard input")
    parser.add_argument("--flow-id", default="", help="stands in every log line of the call")
    parser.add_argument("--gluster-enabled", action="store_true", help="accepted; there are no gluster verbs here")
    namespaces = parser.add_subparsers(title="namespaces", metavar="namespace method [name=value ...]")
    verbs: dict[str, list[str]] = {}
    for verb in contract.rows():
        namespace, _, method = verb.partition(".")
        verbs.setdefault(namespace, []).append(method)
    for namespace in sorted(verbs):
        inner = namespaces.add_parser(namespace, help=f"{len(verbs[namespace])} methods")
        inner.set_defaults(namespace=namespace)
        if namespace in given:
            _add_methods(inner, namespace, sorted(verbs[namespace]), given)
    return parser


def _add_methods(parser: argparse.ArgumentParser, namespace: str, methods: Sequence[str], given: Sequence[str]) -> None:
    commands = parser.add_subparsers(title=f"methods of {namespace}", metavar="method [name=value ...]")
    for method in methods:
        verb = f"{namespace}.{method}"
        row = contract.rows()[verb]
        command = commands.add_parser(
            method, help=", ".join(row.params) or None, formatter_class=argparse.RawTextHelpFormatter
        )
        command.set_defaults(method=method)
        text = _describe(verb) if method in given else ""
        command.add_argument("words", metavar="name=value", nargs="*", help=text.replace("%", "%%"))


def _describe(verb: str) -> str:
    fields = contract.fields(contract.rows()[verb].params)
    if not fields:
        return "it has no parameters"
    lines = [f"{name}: {kind}{'' if required else ' (may be missing)'}" for name, (kind, required) in fields.items()]
    example = {name: _example(contract.parse(kind), DEPTH) for name, (kind, _) in fields.items()}
    return "\n".join([*lines, "", "As JSON:", json.dumps(example, indent=4)])


def _example(kind: contract.Type, depth: int) -> Any:
    """A value of that type, with the names of types in place of values."""
    match kind:
        case contract.ListOf(item):
            return [_example(item, depth)]
        case contract.MapOf(key, value):
            return {str(_example(key, depth)): _example(value, depth)}
        case contract.OneOf(members):
            return _example(members[0], depth)
        case contract.Named(name):
            body = contract.bodies().get(name)
            if isinstance(body, list):
                return "|".join(body)
            if isinstance(body, str):
                return _example(contract.parse(body), depth)
            if body is None or depth == 0:
                return name
            return {
                field: _example(contract.parse(text), depth - 1) for field, (text, _) in contract.fields(body).items()
            }


if __name__ == "__main__":
    run()

# SPDX-License-Identifier: GPL-2.0-or-later
"""From a command to the agent and back: one event loop, and each way to fail as a sentence and an exit code.

With ``--json`` a failure is told as JSON, too: one object on stderr, nothing on stdout.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from vdsm.cli.exits import Exit
from vdsm.cli.values import BadArgument
from vdsm.client import Client, ConnectionLost, NoAnswer, RpcError, Unsendable
from vdsm.client import tls as client_tls
from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.paths import Paths
from vdsm.hooking.points import UnknownPoint

T = TypeVar("T")

SOCKET_VARIABLE = "VDSM_SOCKET"
REFUSED = "why it refused a connection stands in its log"
# of a remedy: the doctor itself leaves it out
LOOK = ". What is missing: vdsm doctor"
START = f"Start it: systemctl start vdsm. See why it ended: journalctl -u vdsm{LOOK}"


@dataclass(frozen=True)
class Failure:
    text: str
    remedy: str
    exit: Exit
    code: int | None = None  # of the agent's error


@dataclass(frozen=True)
class Remote:
    """The port of an agent, this host's or another's, in place of the unix socket."""

    host: str
    port: int
    tls: bool


# where this command goes: chosen once, by the options before the command
_remote: contextvars.ContextVar[Remote | None] = contextvars.ContextVar("remote", default=None)


# how this command tells what goes wrong: chosen once, by --json
_as_json: contextvars.ContextVar[bool] = contextvars.ContextVar("as_json", default=False)


def tell_as_json(value: bool) -> bool:
    """For the option --json, before anything can fail."""
    _as_json.set(value)
    return value


AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.", callback=tell_as_json, is_eager=True)]


def go_to(remote: Remote | None) -> None:
    _remote.set(remote)


def stay_here(command: str) -> None:
    """For commands that look at this host's files. Ends the program when another host was asked for."""
    if _remote.get() is not None:
        stop(Failure(f"'{command}' looks at this host only: --host does not go with it.", "", Exit.USAGE))


def agent_socket() -> str:
    return os.environ.get(SOCKET_VARIABLE) or Paths().socket


def connect() -> Client:
    """Raises `NoIdentity` where this host has no certificate for another's port."""
    remote = _remote.get()
    if remote is None:
        return Client.unix(agent_socket())
    context = client_tls.context(client_tls.own(Paths().pki)) if remote.tls else None
    return Client.stomp(remote.host, remote.port, context)


def carry_out(work: Coroutine[Any, Any, T], patience: str = "") -> T:
    """The result; a failure is told on stderr and ends the command. ``patience``: how to wait longer for the answer."""
    return look(lambda: asyncio.run(work), patience)


def look(work: Callable[[], T], patience: str = "") -> T:
    """The same for work on this host's files."""
    try:
        return work()
    except AgentError as e:
        stop(explain(e, patience))
    except BrokenPipeError:
        raise
    except OSError as e:
        remedy = "Run it as root" if isinstance(e, PermissionError) else ""
        stop(Failure(f"{e.filename or 'this host'}: {e.strerror or e}.", remedy, Exit.REFUSED))
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    raise AssertionError  # stop() never returns


def stop(failure: Failure) -> None:
    if _as_json.get():
        told = {"message": failure.text, "code": failure.code, "remedy": failure.remedy, "exit": failure.exit.value}
        typer.echo(json.dumps({"error": told}, ensure_ascii=False), err=True)
        raise typer.Exit(failure.exit)
    typer.secho(failure.text, err=True, fg="red")
    if failure.remedy:
        typer.secho(f"  {failure.remedy}", err=True)
    raise typer.Exit(failure.exit)


def explain(error: AgentError, patience: str = "") -> Failure:
    match error:
        case RpcError():
            text = f"{error.method}: {error.message} (code {error.code})"
            return Failure(text, error.advice, Exit.REFUSED, error.code)
        case ConnectionLost():
            return _unreachable(error)
        case NoAnswer():
            log = "What the agent does stands in its log: journalctl -u vdsm"
            remedy = f"The call may still go on in the agent. {patience or log}"
            return Failure(f"{error}.", remedy, Exit.NO_ANSWER)
        case BadArgument() | Unsendable() | UnknownPoint() | InvalidParameter():
            return Failure(str(error), "", Exit.USAGE)
        case client_tls.NoIdentity():
            return Failure(f"{error}.", error.remedy, Exit.UNREACHABLE)
        case _:
            return Failure(str(error), error.remedy, Exit.REFUSED)


def _unreachable(error: ConnectionLost) -> Failure:
    path = error.where
    if _remote.get() is not None:
        return Failure(
            f"{error}.", f"See on that host: systemctl status vdsm; vdsm cert status; {REFUSED}", Exit.UNREACHABLE
        )
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
    except PermissionError:
        text = f"User {os.geteuid()} may not open the agent's socket {path}."
        return Failure(text, "Run it as root, or join the group vdsm-operator", Exit.UNREACHABLE)
    except FileNotFoundError:
        return Failure(f"The agent does not run: there is no socket {path}.", START, Exit.UNREACHABLE)
    except ConnectionRefusedError:
        text = f"The agent does not run: nobody listens at {path}."
        return Failure(text, START, Exit.UNREACHABLE)
    except OSError:
        pass  # the probe knows no better than the client
    return Failure(f"{error}.", START, Exit.UNREACHABLE)

# SPDX-License-Identifier: GPL-2.0-or-later
"""From a command to the agent and back: one event loop, and each way to fail as a sentence and an exit code."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import typer

from vdsm.cli.exits import Exit
from vdsm.cli.values import BadArgument
from vdsm.client import Client, ConnectionLost, NoAnswer, RpcError, Unsendable
from vdsm.client import tls as client_tls
from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths

T = TypeVar("T")

SOCKET_VARIABLE = "VDSM_SOCKET"
REFUSED = "why it refused a connection stands in its log"
START = "Start it: systemctl start vdsm. See why it ended: journalctl -u vdsm. What is missing: vdsm doctor"


@dataclass(frozen=True)
class Failure:
    text: str
    remedy: str
    exit: Exit


@dataclass(frozen=True)
class Remote:
    """The port of an agent, this host's or another's, in place of the unix socket."""

    host: str
    port: int
    tls: bool


# where this command goes: chosen once, by the options before the command
_remote: contextvars.ContextVar[Remote | None] = contextvars.ContextVar("remote", default=None)


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


def carry_out(work: Coroutine[Any, Any, T]) -> T:
    """The result; a failure is told on stderr and ends the command."""
    try:
        return asyncio.run(work)
    except AgentError as e:
        stop(explain(e))
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    raise AssertionError  # stop() never returns


def stop(failure: Failure) -> None:
    typer.secho(failure.text, err=True, fg="red")
    if failure.remedy:
        typer.secho(f"  {failure.remedy}", err=True)
    raise typer.Exit(failure.exit)


def explain(error: AgentError) -> Failure:
    match error:
        case RpcError():
            return Failure(f"{error.method}: {error.message} (code {error.code})", error.advice, Exit.REFUSED)
        case ConnectionLost():
            return _unreachable(error)
        case NoAnswer():
            remedy = "The call may still go on in the agent. Wait longer with --timeout, or look: vdsm status"
            return Failure(f"{error}.", remedy, Exit.NO_ANSWER)
        case BadArgument() | Unsendable():
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

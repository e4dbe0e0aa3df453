# SPDX-License-Identifier: GPL-2.0-or-later
"""From a command to the agent and back: one event loop, and each way to fail as a sentence and an exit code."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import typer

from vdsm.cli.exits import Exit
from vdsm.cli.values import BadArgument
from vdsm.client import Client, ConnectionLost, NoAnswer, RpcError
from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths

T = TypeVar("T")

SOCKET_VARIABLE = "VDSM_SOCKET"
START = "Start it: systemctl start vdsm. See why it ended: journalctl -u vdsm. What is missing: vdsm doctor"


@dataclass(frozen=True)
class Failure:
    text: str
    remedy: str
    exit: Exit


def agent_socket() -> str:
    return os.environ.get(SOCKET_VARIABLE) or Paths().socket


def connect() -> Client:
    return Client.unix(agent_socket())


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
        case BadArgument():
            return Failure(str(error), "", Exit.USAGE)
        case _:
            return Failure(str(error), error.remedy, Exit.REFUSED)


def _unreachable(error: ConnectionLost) -> Failure:
    path = error.where
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

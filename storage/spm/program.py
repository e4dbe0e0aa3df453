# SPDX-License-Identifier: GPL-2.0-or-later
"""The program of a leased process: ``python -m storage.spm <what> <socket fd>``, settings as one line of JSON on stdin.

``spm`` is the SPM process, ``once`` makes one change under another domain's lease. Started by the agent only, one at a
time, of ``once`` one for each domain: it takes a lock before anything else, and waits a little for one that is about to
end. It ends when the agent asks for it by closing the socket (the lease is then given back in order), when the agent
dies (PDEATHSIG kills it), or when its lease is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from typing import Any, Protocol

from storage.domains import Domains
from storage.edges import lease_edges
from storage.halves import STEPS_BACK, halves
from storage.leases.kept import Kept
from storage.lock_link import LocksByLink
from storage.spm.agent import AgentByLink
from storage.spm.once import Once
from storage.spm.own_lease import OwnLease
from storage.spm.serving import Server
from vdsm.common import groups, logs, single, starts
from vdsm.common.errors import AgentError
from vdsm.common.link import Link
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.spm")

LOCK_WAIT_S = 2.0


class Serving(Protocol):
    async def serve(self, verb: str, params: dict[str, Any]) -> Json: ...
    async def stop(self) -> None: ...


def main(what: str, fd: int) -> None:
    settings = json.loads(sys.stdin.readline())
    name = {"spm": "The SPM process", "once": "A change under a lease"}[what]
    try:
        single.hold(settings["locks"][what] + settings["about"], name, wait_s=LOCK_WAIT_S)
    except single.AlreadyRuns as e:
        print(f"vdsm: {e}", file=sys.stderr)
        sys.exit(single.CODE)
    # a terminal's Ctrl-C is for the agent, which decides when we end; SIGTERM keeps its default action, the end at
    # once: the lock daemon sends it when the lease is lost
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = logs.setup(settings["log_level"])
    starts.run(_serve(what, fd, settings))
    log.info("process %d (%s) ends", os.getpid(), what)
    running.stop()
    # threads that wait for the lock daemon must not keep us
    os._exit(0)


async def _serve(what: str, fd: int, settings: dict[str, Any]) -> None:
    groups.set_folder(settings["commands"])
    kept = Kept()
    below = halves(
        settings["mounts"],
        lease_edges(kept),
        io_timeout_s=settings["io_timeout_s"],
        request_timeout_s=settings["request_timeout_s"],
    )
    domains = Domains(below.source)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    agent, held = AgentByLink(), LocksByLink()

    def new_lease() -> OwnLease:
        return OwnLease(domains, below.writers, kept, settings["leased"])

    server: Serving = (
        Server(
            new_lease,
            domains,
            agent,
            held,
            readers=STEPS_BACK,
            repository=settings["repository"],
            codes=settings["codes"],
        )
        if what == "spm"
        else Once(new_lease(), domains, agent.tell_step)
    )
    link = agent.link = held.link = Link(reader, writer, serve=held.under_grants(server.serve), name="the agent")
    log.info("process %d (%s) started", os.getpid(), what)
    await link.run()
    try:
        await server.stop()
    except AgentError as e:  # the lock daemon frees the lease when we are gone: ending is always safe
        log.error("the lease was not given back in order: %s", e)
    with contextlib.suppress(AgentError):
        await domains.close()
        await below.writers.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM process: ``python -m storage.spm <socket fd>``, settings as one line of JSON on stdin.

Started by the agent only, one at a time: it takes a lock before anything else, and waits a little for one that is about
to end. It ends when the agent asks for it by closing the socket (the role is then
given up in order), when the agent dies (PDEATHSIG kills it), or when its lease is gone.
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
from typing import Any

from storage.domains import Domains
from storage.edges import lease_edges
from storage.file.iopool import IoPools
from storage.file.source import MountedFolders
from storage.lock_link import LocksByLink
from storage.spm.agent import AgentByLink
from storage.spm.serving import Server
from vdsm.common import groups, logs, single, starts
from vdsm.common.errors import AgentError
from vdsm.common.link import Link

log = logging.getLogger("vdsm.storage.spm")

LOCK_WAIT_S = 2.0


async def serve(fd: int, settings: dict[str, Any]) -> None:
    groups.set_folder(settings["commands"])
    leases_of = lease_edges()
    pools = IoPools()
    mounted = MountedFolders(settings["mounts"], leases_of, pools, io_timeout_s=settings["io_timeout_s"])
    domains = Domains(mounted, leases_of)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    agent = AgentByLink()
    held = LocksByLink()
    server = Server(domains, agent, held, repository=settings["repository"], codes=settings["codes"])
    link = agent.link = held.link = Link(reader, writer, serve=held.under_grants(server.serve), name="the agent")
    log.info("SPM process %d started", os.getpid())
    await link.run()
    try:
        await server.stop()
    except AgentError as e:  # the lock daemon frees the lease of a dead process: ending is always safe
        log.error("the SPM role was not given up in order: %s", e)
    with contextlib.suppress(AgentError):
        await domains.close()
        await pools.close()


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    try:
        single.hold(settings["lock"], "The SPM process", wait_s=LOCK_WAIT_S)
    except single.AlreadyRuns as e:
        print(f"vdsm: {e}", file=sys.stderr)
        sys.exit(single.CODE)
    # a terminal's Ctrl-C is for the agent, which decides when we end; SIGTERM keeps its default action, the end at
    # once: the lock daemon sends it when the lease is lost
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = logs.setup(settings["log_level"])
    starts.run(serve(int(sys.argv[1]), settings))
    log.info("SPM process %d ends", os.getpid())
    running.stop()
    # threads that wait for the lock daemon must not keep us
    os._exit(0)


if __name__ == "__main__":
    main()

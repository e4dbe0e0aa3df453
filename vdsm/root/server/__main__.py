# SPDX-License-Identifier: GPL-2.0-or-later
"""The root helper's process: ``python -m vdsm.root.server``.

It listens on a unix socket that only root and the agent's user may use; who calls is read from the
socket (SO_PEERCRED), never from the message. A verb that has begun runs to its end when the
caller goes away. SIGTERM ends it after the verbs that run (at most `DRAIN_S` seconds).

At start it takes its lock, before anything is touched: a second helper says who runs and ends with code 75. Then it
kills what an earlier run left behind, sees to the folders, lets each part mend what a crash left half done (mounts,
the network's journal), and only then accepts calls.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import pwd
import signal
import sys
from typing import Any

from vdsm.certificates import install
from vdsm.common import groups, logs, single, starts
from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths
from vdsm.common.types import Json
from vdsm.root.server import folders, verbs
from vdsm.root.server.callers import Callers
from vdsm.root.server.registry import VERBS, Helper, dispatch

log = logging.getLogger("vdsm.root")

AGENT_USER = "vdsm"
DRAIN_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="vdsm-root", description="Root helper of the vdsm host agent")
    parser.add_argument("--log-level", default="INFO")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("vdsm-root: must run as root")
    try:
        user = pwd.getpwnam(AGENT_USER)
    except KeyError:
        sys.exit(f"vdsm-root: there is no user {AGENT_USER!r}; 'vdsm doctor' tells how to make it")
    paths = Paths()
    try:
        folders.prepare_own(paths)
        single.hold(paths.root_lock, "The root helper")
    except single.AlreadyRuns as e:
        print(f"vdsm-root: {e}. {e.remedy}", file=sys.stderr)
        sys.exit(single.CODE)
    except (OSError, AgentError) as e:
        sys.exit(f"vdsm-root: {e}")
    running = logs.setup(arguments.log_level)
    try:
        starts.run(serve(Helper(paths, user.pw_uid, user.pw_gid)))
    finally:
        running.stop()


def _complete_certificates(pki: str) -> None:
    try:
        if os.path.isdir(pki) and install.complete(pki):
            log.info("an import of certificates that was cut off is complete now")
    except (OSError, AgentError) as e:
        log.error("an import of certificates in %s was cut off and can't be completed: %s", pki, e)


async def serve(helper: Helper) -> None:
    paths = helper.paths
    folders.prepare(helper)
    groups.kill_recorded(paths.root_commands)
    groups.set_folder(paths.root_commands)
    await verbs.recover(helper)
    _complete_certificates(paths.pki)

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    calls: set[asyncio.Task[Json]] = set()

    async def run(verb: str, params: dict[str, Any]) -> Json:
        # a task of its own: the verb outlives the connection that asked for it
        task = asyncio.ensure_future(dispatch(helper, verb, params))
        calls.add(task)
        task.add_done_callback(calls.discard)
        return await asyncio.shield(task)

    server = await _listen(helper, Callers(run, frozenset({0, helper.agent_uid})).connected)
    log.info("root helper is ready: %d verbs at %s", len(VERBS), paths.root_socket)
    await stop.wait()
    server.close()
    if calls:
        log.info("waiting for %d calls", len(calls))
        await asyncio.wait(calls, timeout=DRAIN_S)


async def _listen(helper: Helper, connected: Any) -> asyncio.Server:
    path = helper.paths.root_socket
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = await asyncio.start_unix_server(connected, path, backlog=64)
    os.chown(path, 0, helper.agent_gid)
    os.chmod(path, 0o660)
    return server


if __name__ == "__main__":
    main()

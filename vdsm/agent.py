# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's composition root: builds the parts, starts them in order, stops them in reverse.

Start: settings, the lock (before anything is touched: a second agent says who runs and ends with code 75), log, kill
what an earlier run left (its commands and SPM process), hooks before the start, then the listener (so that a watcher
gets an answer from the first second), network, storage, VMs, host statistics. Until the VMs are found again, verbs
that would lie answer "recovering".

Stop (SIGTERM, SIGINT): when the host goes down, the engine has a while to see how VMs ended. Then the listener first,
so that nobody is answered by parts that have ended; then statistics, VMs (they keep running), storage (SPM role given
back), network, hooks after the stop. Each part has `STOP_S` seconds. Then the process ends by `os._exit`: a thread that
hangs in a dead edge must not keep it alive.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from network.service import Network
from storage.access import qemu_identities
from storage.service import Storage
from vdsm import config
from vdsm.api.call import Agent
from vdsm.api.codes import all_codes
from vdsm.common import groups, heap, logs, single, starts
from vdsm.common.clocks import Clock
from vdsm.common.deadlines import deadline
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.common.jobs import Jobs
from vdsm.common.paths import Paths
from vdsm.config import Settings
from vdsm.hooking.service import Hooks
from vdsm.host.expiry import Expiry
from vdsm.host.identity import host_uuid
from vdsm.host.machines import Hypervisor
from vdsm.host.service import Host
from vdsm.root.client import RootClient
from vdsm.rpc.service import Rpc
from vdsm.virt.domain_xml.placeholders import HostFacts
from vdsm.virt.host_facts import can_use_kvm
from vdsm.virt.libvirt_edge.libvirt_hypervisor import LibvirtHypervisor
from vdsm.virt.qemu_process import find_all
from vdsm.virt.vms import Vms

log = logging.getLogger("vdsm.agent")

STOP_S = 30.0
SERVING = "rpc"

Stop = tuple[str, Callable[[], Awaitable[None]]]


def main(paths: Paths | None = None) -> None:
    """Run until SIGTERM or SIGINT.

    Exit codes: 0 ordered stop, 1 start failed, 75 another agent runs, 78 bad configuration.
    """
    paths = paths or Paths()
    try:
        settings = config.load(paths)
    except config.BadConfiguration as e:
        print(f"vdsm: {e}. {e.remedy}", file=sys.stderr)
        sys.exit(78)
    try:
        single.hold(paths.agent_lock, "The agent")
    except single.AlreadyRuns as e:
        print(f"vdsm: {e}. {e.remedy}", file=sys.stderr)
        sys.exit(single.CODE)
    except OSError as e:
        print(f"vdsm: {e}. Start the root helper first: it makes the agent's folders", file=sys.stderr)
        sys.exit(1)
    heap.give_large_blocks_back()
    running = logs.setup(settings.log_level)
    code = 1
    try:
        code = starts.run(serve(paths, settings))
    except (AgentError, OSError) as e:  # of the host: its sentence is enough
        log.error("the agent could not start: %s", e)
    except Exception:  # a defect: whoever reads the log needs the place; os._exit below would swallow it
        log.exception("the agent could not start")
    finally:
        running.stop()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def serve(paths: Paths, settings: Settings) -> int:
    """Start everything, run until a signal, stop everything. The exit code."""
    for warning in settings.warnings:
        log.warning("%s", warning)
    groups.kill_recorded(paths.commands)
    groups.set_folder(paths.commands)

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    agent = build(paths, settings)
    stops: list[Stop] = []
    try:
        with Clock("agent.start") as clock:
            await _start(agent, stops, clock)
        if agent.vms.recovered:
            log.info("the agent is ready at %s", paths.socket)
        else:
            log.warning("the agent answers at %s; VMs are not found yet: until then it is not ready", paths.socket)
        await stop.wait()
        log.info("stopping")
        await agent.vms.farewell()
    finally:
        await _stop(stops)
    return 0


def build(paths: Paths, settings: Settings) -> Agent:
    """The parts, made but not started."""
    events = Events()
    jobs = Jobs(events)
    root = RootClient(paths.root_socket)
    uuid = host_uuid(paths)
    hooks = Hooks(
        paths=paths,
        root=root,
        events=events,
        default_timeout_s=settings.hook_timeout_s,
        timeouts_s=settings.hook_timeouts_s,
    )
    network = Network(paths=paths, root=root, events=events, run_hook=hooks.run_json)
    storage = Storage(
        paths=paths,
        root=root,
        events=events,
        jobs=jobs,
        io_timeout_s=settings.sanlock_io_timeout_s,
        host_name=uuid,
        error_codes=all_codes(),
        monitor_interval_s=settings.health_check_delay_s,
        request_timeout_s=settings.io_request_timeout_s,
    )
    hypervisor = LibvirtHypervisor(settings.libvirt_uri)
    vms = Vms(
        paths=paths,
        storage=storage,
        hooks=hooks,
        events=events,
        hypervisor=hypervisor,
        facts=facts(uuid),
        start_slots=settings.vm_start_slots,
        stats_interval_s=settings.stats_interval_s,
        processes=partial(find_all, {0, *(who.uid for who in qemu_identities())}),
    )
    storage.when_valid(vms.storage_is_back)

    async def emulates() -> Hypervisor:
        return Hypervisor(*await hypervisor.host_documents("kvm" if can_use_kvm() else "qemu"))

    host = Host(
        paths=paths,
        period_s=settings.stats_interval_s,
        hypervisor=emulates,
        network=network.capabilities,
        network_dirty=lambda: network.dirty,
        hooks=hooks.installed,
        storage_domains=storage.repo_stats,
        vm_states=lambda: [str(vm.status.reported) for vm in vms.all()],
    )
    return Agent(
        paths=paths,
        settings=settings,
        jobs=jobs,
        events=events,
        storage=storage,
        network=network,
        vms=vms,
        host=host,
        hooks=hooks,
        root=root,
    )


def facts(uuid: str) -> HostFacts:
    release = platform.freedesktop_os_release()
    return HostFacts(
        os_name=release.get("NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        host_id=uuid,
        kvm=can_use_kvm(),
    )


async def _start(agent: Agent, stops: list[Stop], clock: Clock) -> None:
    with clock.step("hooks"):
        await agent.hooks.run_empty("before_vdsm_start")
    stops.append(("hooks", lambda: agent.hooks.run_empty("after_vdsm_stop")))
    started = asyncio.Event()
    parts: Mapping[str, Any] = {
        "rpc": Rpc(agent, ready=lambda: agent.vms.recovered, started=started.is_set),
        "network": agent.network,
        "storage": agent.storage,
        "vms": agent.vms,
        "host": agent.host,
        "certificates": Expiry(agent.paths.pki, agent.events),
    }
    for name, part in parts.items():
        with clock.step(name):
            stops.append((name, part.stop))
            await part.start()
    started.set()


async def _stop(stops: list[Stop]) -> None:
    # what serves callers starts first, to answer a watcher, and stops first, too
    serving = [part for part in stops if part[0] == SERVING]
    for name, stop in (*serving, *(part for part in reversed(stops) if part not in serving)):
        try:
            async with deadline(f"Stopping {name}", STOP_S):
                await stop()
        except AgentError as e:
            log.error("%s", e)
        except Exception:  # one part's defect must not keep the others from stopping in order
            log.exception("stopping %s failed", name)

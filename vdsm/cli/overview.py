# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm status`: what is asked of the agent, and how its answers become one screen.

Each question stands alone: what one of them can't answer is said in its place, the rest is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vdsm.cli.connection import explain
from vdsm.cli.exits import Exit
from vdsm.cli.output import bar, duration, fitted, plain, size
from vdsm.client import Client, ClientError, RpcError

TIMEOUT_S = 10.0
INDENT = 2
_STATES = {"Up": "green", "Down": "red", "Paused": "yellow", "active": "green", "Active": "green", "up": "green"}


@dataclass
class Overview:
    host: Mapping[str, Any] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)
    vms: list[Mapping[str, Any]] = field(default_factory=list)
    pools: list[Mapping[str, Any]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    exit: Exit = Exit.DONE

    def to_json(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "stats": self.stats,
            "vms": self.vms,
            "pools": self.pools,
            "problems": self.problems,
        }


async def gather(client: Client) -> Overview:
    """Raises ConnectionLost or NoAnswer when the agent is not there at all; an RpcError is a problem of one part."""
    await client.call("rpc.discover", timeout_s=TIMEOUT_S)
    found = Overview()
    host, stats, vms, pools = await asyncio.gather(
        _ask(client, found, "host", "Host.getCapabilities"),
        _ask(client, found, "statistics", "Host.getStats"),
        _ask(client, found, "VMs", "Host.getAllVmStats"),
        _ask(client, found, "pool", "Host.getConnectedStoragePools"),
    )
    found.host, found.stats, found.vms = host or {}, stats or {}, vms or []
    for pool_id in pools or []:
        params = {"storagepoolID": pool_id}
        info = await _ask(client, found, f"pool {pool_id}", "StoragePool.getInfo", params)
        spm = await _ask(client, found, f"SPM of {pool_id}", "StoragePool.getSpmStatus", params)
        found.pools.append({"id": pool_id, **(info or {}), "spm": spm or {}})
    return found


async def _ask(client: Client, found: Overview, what: str, verb: str, params: Mapping[str, Any] | None = None) -> Any:
    try:
        return await client.call(verb, params, timeout_s=TIMEOUT_S)
    except ClientError as e:
        found.problems[what] = f"{e.message} (code {e.code})" if isinstance(e, RpcError) else str(e)
        found.exit = max(found.exit, explain(e).exit)
    return None


def screen(seen: Overview) -> Group:
    parts: list[RenderableType] = [_heading(seen), _load(seen)]
    elsewhere = dict(seen.problems)
    for title, table, asked in (
        ("Pool", _pools(seen), "pool"),
        ("Domains", _domains(seen), "statistics"),
        ("Networks", _networks(seen), "host"),
        ("Virtual machines", _vms(seen), "VMs"),
    ):
        shown: RenderableType = "[dim]none[/]"
        if table is not None:
            shown = fitted(table, INDENT)
        elif asked in elsewhere:
            shown = f"[red]no answer:[/] {escape(elsewhere.pop(asked))}"
        parts += ["", f"[bold cyan]{title}[/]", Padding(shown, (0, 0, 0, INDENT), expand=False)]
    if elsewhere:
        parts += ["", "[bold red]Not answered[/]"]
        parts += [Padding(f"{what}: {escape(text)}", (0, 0, 0, INDENT)) for what, text in elsewhere.items()]
    return Group(*parts)


def _heading(seen: Overview) -> Text:
    host = seen.host
    system = host.get("operatingSystem", {})
    text = Text("Host ", style="bold cyan")
    text.append(str(host.get("uuid", "unknown")), style="bold")
    details = [
        str(system.get("pretty_name", "")),
        f"kernel {_version(host, 'kernel')}",
        f"QEMU {_version(host, 'qemu-kvm')}",
    ]
    hardware = "" if not host else "KVM" if host.get("kvmEnabled") == "true" else "software emulation"
    text.append("\n  " + " · ".join(filter(None, [*details, hardware])), style="dim")
    return text


def _version(host: Mapping[str, Any], name: str) -> str:
    return str(host.get("packages2", {}).get(name, {}).get("version", "?"))


def _load(seen: Overview) -> Table:
    host, stats = seen.host, seen.stats
    table = Table.grid(padding=(0, 3))
    busy = 100 - _number(stats.get("cpuIdle"), 100)
    total = _number(host.get("memSize"))
    free = _number(stats.get("memFree"))
    table.add_row(
        "  cpu", _gauge(stats, busy), f"{host.get('cpuThreads', '?')} threads, load {stats.get('cpuLoad', '?')}"
    )
    if total and stats:
        table.add_row("  memory", bar(100 * (total - free) / total), f"{size(total - free)} of {size(total)}")
    else:  # half of it would be a wrong figure
        table.add_row(
            "  memory", _gauge({}, 0), f"{size(total) if total else '?'}, {size(free) if stats else '?'} free"
        )
    swap = _number(stats.get("swapTotal"))
    if swap:
        part = swap - _number(stats.get("swapFree"))
        table.add_row("  swap", bar(100 * part / swap), f"{size(part)} of {size(swap)}")
    age = f"for {duration(_number(stats.get('elapsedTime')))}" if stats else ""
    table.add_row("  agent", "[green]running[/]", age)
    return table


def _gauge(answered: Mapping[str, Any], percent: float) -> str:
    return bar(percent) if answered else "[dim]unknown[/]"


def _pools(seen: Overview) -> Table | None:
    if not seen.pools:
        return None
    table = plain("pool", "name", "state", "role", "master version")
    for pool in seen.pools:
        info = pool.get("info", {})
        role = str(pool["spm"].get("spmStatus", "unknown"))
        shown = {"SPM": "[green]SPM[/]", "Free": "[dim]no SPM[/]"}.get(role, escape(role))
        state = escape(str(info.get("pool_status", "")))
        table.add_row(pool["id"], escape(str(info.get("name", ""))), state, shown, str(info.get("master_ver", "")))
    return table


def _domains(seen: Overview) -> Table | None:
    health = seen.stats.get("storageDomains", {})
    known: dict[str, Mapping[str, Any]] = {}
    for pool in seen.pools:
        known |= pool.get("dominfo", {})
    if not health and not known:
        return None
    table = plain("domain", "state", "health", "free", "last check")
    for domain_id in sorted({*health, *known}):
        info, check = known.get(domain_id, {}), health.get(domain_id, {})
        state = str(info.get("status", ""))
        total, free = _number(info.get("disktotal")), _number(info.get("diskfree"))
        space = f"{size(free / 2**20)} of {size(total / 2**20)}" if total else ""
        table.add_row(domain_id, _coloured(state), _health(check), space, _age(check))
    return table


def _health(check: Mapping[str, Any]) -> str:
    if not check:
        return "[dim]not watched[/]"
    if check.get("valid"):
        return f"[green]good[/] [dim]{1000 * _number(check.get('delay')):.1f} ms[/]"
    return f"[red]bad[/] (code {check.get('code')})"


def _age(check: Mapping[str, Any]) -> str:
    return f"{_number(check.get('lastCheck')):.0f} s ago" if check else ""


def _networks(seen: Overview) -> Table | None:
    networks = seen.host.get("networks", {})
    if not networks:
        return None
    counters = seen.stats.get("network", {})
    table = plain("network", "interface", "address", "mtu", "state", "received", "sent")
    for name, network in sorted(networks.items()):
        device = str(network.get("iface", ""))
        counts = counters.get(device, counters.get(name, {}))
        bridged = " (bridge)" if network.get("bridged") else ""
        address = str(network.get("addr", "")) or ", ".join(network.get("ipv6addrs", []))
        traffic = [size(_number(counts.get(key)) / 2**20) if counts else "" for key in ("rx", "tx")]
        table.add_row(
            f"{escape(name)}{bridged}",
            escape(device),
            escape(address),
            str(network.get("mtu", "")),
            _coloured(str(counts.get("state", ""))),
            *traffic,
        )
    return table


def _vms(seen: Overview) -> Table | None:
    if not seen.vms:
        return None
    table = plain("VM", "name", "state", "for", "cpu", "")
    for vm in sorted(seen.vms, key=lambda entry: str(entry.get("vmName", ""))):
        cpu = _number(vm.get("cpuUser")) + _number(vm.get("cpuSys"))
        note = str(vm.get("exitMessage") or vm.get("pauseCode") or "")
        table.add_row(
            str(vm.get("vmId", "")),
            escape(str(vm.get("vmName", ""))),
            _coloured(str(vm.get("status", ""))),
            duration(_number(vm.get("elapsedTime"))) if "elapsedTime" in vm else "",
            f"{cpu:.0f} %" if "cpuUser" in vm else "",
            escape("" if note == "NOERR" else note),
        )
    return table


def _coloured(state: str) -> str:
    colour = _STATES.get(state, "yellow" if state else "")
    return f"[{colour}]{escape(state)}[/]" if colour else escape(state)


def _number(value: Any, default: float = 0.0) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default

# SPDX-License-Identifier: GPL-2.0-or-later
"""Host bus adapters and network interfaces as sysfs shows them."""

from __future__ import annotations

import re
from typing import Any

from vdsm.host.tree import Tree

_NET = "/sys/class/net"
_FC = "/sys/class/fc_host"
_INITIATOR = "/etc/iscsi/initiatorname.iscsi"


def initiator_name(tree: Tree) -> str:
    match = re.search(r"^\s*InitiatorName\s*=\s*(\S+)", tree.text(_INITIATOR), re.MULTILINE)
    return match[1] if match else ""


def adapters(tree: Tree) -> dict[str, list[dict[str, str]]]:
    """Both lists are always there: an engine fails without them."""
    fibre = [
        {
            "wwpn": tree.text(f"{_FC}/{name}/port_name").removeprefix("0x"),
            "wwnn": tree.text(f"{_FC}/{name}/node_name").removeprefix("0x"),
            "model": tree.text(f"{_FC}/{name}/symbolic_name"),
        }
        for name in tree.names(_FC)
    ]
    initiator = initiator_name(tree)
    return {"FC": fibre, "iSCSI": [{"InitiatorName": initiator}] if initiator else []}


def random_sources(tree: Tree) -> list[str]:
    found = ["random"] if tree.exists("/dev/random") else []
    return found + (["hwrng"] if tree.exists("/dev/hwrng") else [])


def interfaces(tree: Tree, now_s: float) -> dict[str, dict[str, Any]]:
    """Counters of every interface but the loopback, as the wire wants them."""
    found = {}
    for name in tree.names(_NET):
        folder = f"{_NET}/{name}"
        if name == "lo" or not tree.exists(f"{folder}/statistics"):
            continue
        counts = {key: str(tree.number(f"{folder}/statistics/{file}")) for key, file in _COUNTERS.items()}
        found[name] = {
            "name": name,
            "macAddr": tree.text(f"{folder}/address"),
            "speed": str(max(0, tree.number(f"{folder}/speed"))),  # -1 when there is no carrier
            "state": "up" if tree.text(f"{folder}/operstate") in ("up", "unknown") else "down",
            "sampleTime": now_s,
            **counts,
        }
    return found


_COUNTERS = {
    "rx": "rx_bytes",
    "tx": "tx_bytes",
    "rxErrors": "rx_errors",
    "txErrors": "tx_errors",
    "rxDropped": "rx_dropped",
    "txDropped": "tx_dropped",
}

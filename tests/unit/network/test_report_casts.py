# SPDX-License-Identifier: GPL-2.0-or-later
"""The network part of capabilities holds what engines cast it to."""

from test_plan import BLUE, START, _begin

from contrib.contract.casts import wrong
from network.report import capabilities


def test_networks_tell_what_engines_cast() -> None:
    running = {"blue": BLUE}
    told = capabilities(running, _begin(running).state(), {"eth0": 1000})
    assert told["networks"]["blue"]["iface"] == "blue"
    assert wrong("Host.getNetworkCapabilities", told) == []


def test_a_host_without_networks_tells_what_engines_cast() -> None:
    assert wrong("Host.getNetworkCapabilities", capabilities({}, START, {})) == []

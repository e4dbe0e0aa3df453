# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong with a micro-VM host and its networks, each for the length of a ``with`` block and then restored."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from contrib.lab.microvm.host import MicroHost


@contextlib.contextmanager
def link_cut(host: MicroHost, nic: str) -> Iterator[None]:
    """The cable is out: no carrier on that NIC."""
    _set_link(host, nic, up=False)
    try:
        yield
    finally:
        _set_link(host, nic, up=True)


@contextlib.contextmanager
def packets_delayed(host: MicroHost, nic: str, delay_ms: int) -> Iterator[None]:
    """What the host sends on that NIC leaves so much later."""
    with _netem(host, nic, f"delay {delay_ms}ms"):
        yield


@contextlib.contextmanager
def packets_lost(host: MicroHost, nic: str, percent: float) -> Iterator[None]:
    """That share of what the host sends on that NIC is lost, at random."""
    with _netem(host, nic, f"loss random {percent}%"):
        yield


@contextlib.contextmanager
def paused(host: MicroHost) -> Iterator[None]:
    """The host stands still, its clock too; it goes on with the right time."""
    with host.qmp() as qmp:
        qmp.command("stop")
    try:
        yield
    finally:
        with host.qmp() as qmp:
            qmp.command("cont")
        _set_clock(host)


@contextlib.contextmanager
def power_cut(host: MicroHost) -> Iterator[None]:
    """The host is off; it boots from the same disk afterwards. Its agent is not started."""
    host.power_cut()
    try:
        yield
    finally:
        host.start()


@contextlib.contextmanager
def clock_shifted(host: MicroHost, seconds: int) -> Iterator[None]:
    """The wall clock jumps by so much (back when negative); the monotonic clock does not."""
    host.run(["date", "-s", f"@{time.time() + seconds:.3f}"])
    try:
        yield
    finally:
        _set_clock(host)


def _set_clock(host: MicroHost) -> None:
    host.run(["date", "-s", f"@{time.time():.3f}"])


def _set_link(host: MicroHost, nic: str, *, up: bool) -> None:
    with host.qmp() as qmp:
        qmp.command("set_link", name=nic, up=up)


@contextlib.contextmanager
def _netem(host: MicroHost, nic: str, what: str) -> Iterator[None]:
    host.run(["tc", "qdisc", "add", "dev", nic, "root", "netem", *what.split()])
    try:
        yield
    finally:
        host.run(["tc", "qdisc", "del", "dev", nic, "root"])

# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of the running agent in Prometheus' text format.

One registry of our own, so that nothing but what is declared in the agent appears. Modules
declare a metric at module level with `counter`, `gauge` or `histogram`; names start ``vdsm_``.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
    return Counter(name, meaning, labels, registry=REGISTRY)


def gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    return Gauge(name, meaning, labels, registry=REGISTRY)


def histogram(name: str, meaning: str, labels: Sequence[str] = (), buckets: Sequence[float] = _SECONDS) -> Histogram:
    """A histogram; buckets in the metric's own unit (seconds unless its name says otherwise)."""
    return Histogram(name, meaning, labels, registry=REGISTRY, buckets=buckets)


_FLOWS = histogram("vdsm_flow_seconds", "Duration of flows", ("flow", "result"))


def observe_flow(flow: str, result: str, seconds: float) -> None:
    _FLOWS.labels(flow, result).observe(seconds)


def render() -> bytes:
    return generate_latest(REGISTRY)

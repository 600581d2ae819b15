"""Metrics of ``serve``: plain numbers in each process, summed over processes, in Prometheus' formats.

Rules of this module:

* The hot path adds to plain integers. Callbacks, hostcalls and time in filters are counted for a sample of requests,
  and scaled up, because watching every hostcall would cost more than most filters do.
* A snapshot is JSON; the snapshots of several processes are added up, gauges included.
* Metrics of guests are shown by `integrations.prometheus`.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from proxywasm_host.integrations.prometheus import Tag, families
from proxywasm_host.services.metrics import Histogram

__all__ = ["FilterCounts", "added", "guests_of", "rendered"]

MICROSECONDS = (10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 0.1, 1.0)
Snapshot = dict[str, Any]


class FilterCounts:
    """The counters of one process for its filters; the data plane counts requests (`ServerThread.counts`)."""

    def __init__(self) -> None:
        self.callbacks: Counter[tuple[str, str]] = Counter()
        """Callbacks, by plugin and name."""
        self.hostcalls: Counter[tuple[str, str, str]] = Counter()
        """Hostcalls, by plugin, name and status."""
        self.filters: dict[str, Histogram] = {}
        """Seconds of a request in a plugin, by plugin."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """Failures of guests, by plugin and cause."""
        self.restarts: Counter[tuple[str]] = Counter()
        self.reloads: Counter[tuple[str]] = Counter({("loaded",): 0, ("refused",): 0, ("recycled",): 0})

    def in_filter(self, plugin: str, seconds: float) -> None:
        """Add the time that a sampled request has spent in a plugin."""
        self.filters.setdefault(plugin, Histogram(MICROSECONDS)).note(seconds)

    def snapshot(self) -> Snapshot:
        """The counters, as JSON values."""
        return {
            "callbacks": _flat(self.callbacks),
            "hostcalls": _flat(self.hostcalls),
            "filters": {plugin: histogram.snapshot() for plugin, histogram in self.filters.items()},
            "failures": _flat(self.failures),
            "restarts": _flat(self.restarts),
            "reloads": _flat(self.reloads),
        }


SEPARATOR = "\x1f"


def _flat(counter: Counter[Any]) -> dict[str, int]:
    return {SEPARATOR.join(labels): count for labels, count in counter.items()}


def added(snapshots: Iterable[Snapshot], add: Callable[[Any, Any], Any] = operator.add) -> Snapshot:
    """The sum of several processes: numbers are added, mappings merged; other values come from the last one."""
    total: Snapshot = {}
    for snapshot in snapshots:
        for key, value in snapshot.items():
            total[key] = _sum(total.get(key), value, add)
    return total


def _sum(one: Any, other: Any, add: Callable[[Any, Any], Any]) -> Any:
    if one is None:
        return other
    if isinstance(one, dict) and isinstance(other, dict):
        if "bounds" in one:
            counts = [add(a, b) for a, b in zip(one["counts"], other["counts"], strict=True)]
            return {"bounds": one["bounds"], "counts": counts, "sum": add(one["sum"], other["sum"])}
        return added([one, other], add)
    return add(one, other) if isinstance(one, (int, float)) and isinstance(other, (int, float)) else other


def guests_of(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The metrics of filters in all these processes: sums if they are separate, the newest if they are shared.

    The newest counter is the highest, because counters only grow; gauges differ only by the last milliseconds.
    """
    shared = any(snapshot["shared"] for snapshot in snapshots)
    return added((snapshot["guests"] for snapshot in snapshots), max if shared else operator.add)


# -- For Prometheus ----------------------------------------------------------------------------------------------------

OURS = (
    ("callbacks", "Callbacks of filters, scaled up from sampled requests.", ("plugin", "callback")),
    ("hostcalls", "Hostcalls of filters, scaled up from sampled requests.", ("plugin", "hostcall", "status")),
    ("failures", "Failures of guests by cause.", ("plugin", "cause")),
    ("restarts", "New VMs that replaced failed ones.", ("plugin",)),
    ("upstream_requests", "Requests sent to a server, counting each attempt.", ("upstream", "server")),
    ("upstream_failures", "Requests to a server without a response, or with 500 and above.", ("upstream", "server")),
    ("upstream_connect_failures", "Connections to a server that could not be made.", ("upstream", "server")),
    ("upstream_ejections", "How often a server was ejected because it failed.", ("upstream", "server")),
    ("upstream_retries", "Requests that were retried.", ("upstream",)),
    ("upstream_overflows", "Requests that were refused because too many waited.", ("upstream",)),
    ("reloads", "Configurations that were loaded at runtime, refused, or loaded again by `recycle`.", ("outcome",)),
)


VMS = (
    ("peak_memory_bytes", "The peak memory of a VM of this filter."),
    ("generation", "Number of VMs that the filter has had."),
    ("streams", "Open requests of the filter, in the VM or in separate VMs."),
    ("isolated_memory_bytes", "Memory of separate VMs for open requests (`isolation`)."),
    ("age_seconds", "Time since the VM started."),
)


def rendered(ours: Snapshot, guests: Snapshot, accept: str, tags: Sequence[Tag] = ()) -> tuple[bytes, str]:
    """A page for Prometheus and its content type. `accept` is its header; `tags` are labels of guests' metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(ours, guests, tags))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    def __init__(self, ours: Snapshot, guests: Snapshot, tags: Sequence[Tag]) -> None:
        self._ours = ours
        self._guests = guests
        self._tags = tags

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        ours = self._ours
        requests = CounterMetricFamily("proxywasm_requests", "Requests by status.", labels=["code"])
        for code, count in ours["requests"].items():
            requests.add_metric([code], count)
        yield requests
        for key, text, labels in OURS:
            family = CounterMetricFamily(f"proxywasm_{key}", text, labels=labels)
            for joined, count in ours.get(key, {}).items():
                family.add_metric(joined.split(SEPARATOR), count)
            yield family
        ejected = GaugeMetricFamily(
            "proxywasm_upstream_ejected", "Processes that have ejected a server.", labels=["upstream", "server"]
        )
        for joined, count in ours.get("upstream_ejected", {}).items():
            ejected.add_metric(joined.split(SEPARATOR), count)
        yield ejected
        yield GaugeMetricFamily("proxywasm_requests_in_progress", "Requests under way.", ours["in_progress"])
        yield GaugeMetricFamily("proxywasm_resident_bytes", "Memory of the processes.", ours["resident_bytes"])
        memory = GaugeMetricFamily("proxywasm_vm_memory_bytes", "Memory of guests.", labels=["plugin"])
        for plugin, size in ours["memory"].items():
            memory.add_metric([plugin], size)
        yield memory
        for key, text in VMS:
            gauge = GaugeMetricFamily(f"proxywasm_vm_{key}", text, labels=["plugin", "process"])
            for joined, usage in ours["vms"].items():
                gauge.add_metric(joined.split(SEPARATOR), usage[key.removesuffix("_bytes").removesuffix("_seconds")])
            yield gauge
        latency = HistogramMetricFamily("proxywasm_request_duration_seconds", "From request to end of response.")
        _bucketed(latency, [], ours["latency"])
        yield latency
        filters = HistogramMetricFamily(
            "proxywasm_filter_duration_seconds", "Time of a sampled request in a filter.", labels=["plugin"]
        )
        for plugin, histogram in ours["filters"].items():
            _bucketed(filters, [plugin], histogram)
        yield filters
        yield from families(self._guests, self._tags)


def _bucketed(family: HistogramMetricFamily, labels: list[str], histogram: Snapshot) -> None:
    total = 0
    buckets: list[tuple[str, float]] = []
    bounds = [*(str(float(bound)) for bound in histogram["bounds"]), "+Inf"]
    for bound, count in zip(bounds, histogram["counts"], strict=True):
        total += count
        buckets.append((bound, total))
    family.add_metric(labels, buckets, histogram["sum"])

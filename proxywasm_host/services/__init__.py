"""Services that hostcalls use: one small protocol each, with an in-memory default.

Rules: nothing here depends on the ABI or an engine. Only services outside of the process (`shared`) block, for a stated
time. One object may serve many VMs and threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from proxywasm_host.services.clock import Clock, ManualClock, SystemClock
from proxywasm_host.services.foreign import BUILT_IN, ForeignCallFailed, ForeignFunction
from proxywasm_host.services.log import GuestLog, LogSink, StandardLogging
from proxywasm_host.services.metrics import InMemoryMetrics, Metrics
from proxywasm_host.services.quota import QuotaExceeded
from proxywasm_host.services.shared_data import InMemorySharedData, SharedData
from proxywasm_host.services.shared_queue import InMemorySharedQueues, SharedQueues, UnknownQueue
from proxywasm_host.services.unavailable import ServiceUnavailable
from proxywasm_host.services.zones import UnknownZone, Zone, ZonedSharedData, ZonedSharedQueues, ZoneFull, Zones

__all__ = [
    "Clock",
    "ForeignCallFailed",
    "ForeignFunction",
    "GuestLog",
    "InMemoryMetrics",
    "InMemorySharedData",
    "InMemorySharedQueues",
    "LogSink",
    "ManualClock",
    "Metrics",
    "QuotaExceeded",
    "ServiceUnavailable",
    "Services",
    "SharedData",
    "SharedQueues",
    "StandardLogging",
    "SystemClock",
    "UnknownQueue",
    "UnknownZone",
    "Zone",
    "ZoneFull",
    "ZonedSharedData",
    "ZonedSharedQueues",
    "Zones",
    "max_callouts_of",
]

MAX_CALLOUTS = 256
"""Default limit of concurrent callouts from one plugin to one cluster. Envoy's is 1024 for all of its filters together,
which is often the limit of file descriptors of one of our processes.
"""


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one `Host`. Hosts of several threads may share any of them."""

    clock: Clock = field(default_factory=SystemClock)
    log: LogSink = field(default_factory=StandardLogging)
    metrics: Metrics = field(default_factory=InMemoryMetrics)
    shared_data: SharedData = field(default_factory=InMemorySharedData)
    shared_queues: SharedQueues = field(default_factory=InMemorySharedQueues)
    foreign_functions: Mapping[str, ForeignFunction] = field(default_factory=lambda: dict(BUILT_IN))
    clusters: Container[str] = frozenset()
    """Names of the clusters for callouts. A callout to any other is refused with BAD_ARGUMENT (gRPC: PARSE_FAILURE)."""
    upstream_hosts: Callable[[], Mapping[str, str]] = dict
    """Returns information about each upstream host by address, for Higress's ``proxy_get_upstream_hosts``."""
    random: Callable[[int], bytes] = os.urandom
    """Returns the given number of random bytes."""

    def __post_init__(self) -> None:
        """Check that each service has its methods. Raises: TypeError."""
        if isinstance(self.clusters, (str, bytes)):
            raise TypeError(f"clusters are names: write {{{self.clusters!r}}}, a set, not {self.clusters!r}")
        for name, wanted, hint in (
            ("clock", "time_ns", "SystemClock()"),
            ("log", "log", "StandardLogging(), or an object with log(line) and level"),
            ("metrics", "define", "InMemoryMetrics()"),
            ("shared_data", "get", "InMemorySharedData()"),
            ("shared_queues", "enqueue", "InMemorySharedQueues()"),
        ):
            service = getattr(self, name)
            if not callable(getattr(service, wanted, None)) or type(service).__module__ == "logging":
                raise TypeError(f"{name} is {hint}, not {service!r}")


def max_callouts_of(clusters: Container[str], name: str) -> int:
    """Limit of concurrent callouts from one plugin to a cluster."""
    get = getattr(clusters, "get", None)  # a mapping has it, a set of names has not
    most: int = MAX_CALLOUTS if get is None else getattr(get(name), "max_callouts", MAX_CALLOUTS)
    return most

"""Metrics of filters for Prometheus: a collector for the registry of any application.

    from prometheus_client import REGISTRY
    from proxywasm_host.integrations.prometheus import HIGRESS, FilterMetrics

    REGISTRY.register(FilterMetrics(middleware.metrics, tags=HIGRESS))

Guests' metrics have no labels, so guests write them into names. A `Tag` extracts one, as Envoy's ``stats_tags`` do.
Characters that Prometheus does not allow in a name become ``_``. A name without tags is also shown as the label
``name``. If metrics of two kinds have the same name, or a name belongs to another metric (``x_total`` of a counter
``x``), the kind is appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxywasm_host import remedy

try:
    from prometheus_client.core import Metric
except ModuleNotFoundError as error:
    raise remedy.missing("prometheus", error) from None

__all__ = ["ENVOY", "HIGRESS", "ISTIO", "KUADRANT", "SETS", "FilterMetrics", "Tag", "families"]

PREFIX = "wasmcustom_"
MAX_NAME = 2_000
"""Characters up to which labels are extracted from a name. Only a hostile guest makes longer ones."""
MAX_NAMES = 2 << 20
"""Characters, of all names together, up to which labels are extracted."""
KINDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("counters", "counter", ("_total", "_created")),
    ("gauges", "gauge", ()),
    ("histograms", "histogram", ("_bucket", "_count", "_sum", "_created")),
)
"""Key, kind and OpenMetrics' suffixes of a family's name. Names are assigned in this order."""
Snapshot = Mapping[str, Mapping[str, Any]]
"""``counters``, ``gauges`` and ``histograms`` by name, as `InMemoryMetrics.snapshot` has them."""


@dataclass(frozen=True)
class Tag:
    """A label within names. Its `regex` is searched for in the name with the prefix ``wasmcustom.``.

    As in Envoy's ``TagSpecifier``, the first group is removed from the name; the value is the second group, or the
    first if there is only one. `ends` are the texts that a match may end with, if these are fixed: the search stops
    after the last of them, so that a hostile name does not take quadratic time.

    Raises: ValueError, for an invalid name of a label, or a regex that is invalid or has no group.
    """

    name: str
    regex: str
    ends: tuple[str, ...] = ()
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", self.name) or self.name in ("le", "name"):
            raise ValueError(f"{self.name!r} cannot name a label: use letters, digits and _, and neither le nor name")
        try:
            compiled = re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"{self.regex!r} is not a regular expression: {error}") from None
        if not compiled.groups:
            raise ValueError(f"{self.regex!r} has no group: put the part to remove from the name in parentheses")
        object.__setattr__(self, "_compiled", compiled)

    def taken(self, name: str) -> tuple[str, str] | None:
        """The rest of a name, and the label's value; ``None`` if the name does not contain the label."""
        last = max((name.rfind(end) + len(end) for end in self.ends if end in name), default=0)
        found = self._compiled.search(name, 0, last if self.ends else len(name))
        if found is None or found[1] is None:
            return None
        value = found[2] if found.re.groups > 1 else found[1]
        return name[: found.start(1)] + name[found.end(1) :], value or ""


ENVOY = (
    Tag("envoy_response_code", r"_rq(_(\d{3}))$"),
    Tag("envoy_response_code_class", r"_rq(_(\d)xx)$"),
)
"""The tags of Envoy's ``well_known_names.cc`` that custom metrics can have."""
ISTIO = tuple(
    Tag(name, rf"((?<![a-z_]){name}=\.=(.*?);\.;)", (";.;",))
    for name in (
        *("reporter", "source_principal", "source_workload", "source_workload_namespace", "source_namespace"),
        *("source_canonical_service", "source_canonical_revision", "source_app", "source_version", "source_cluster"),
        *("destination_principal", "destination_workload", "destination_workload_namespace", "destination_namespace"),
        *("destination_canonical_service", "destination_canonical_revision", "destination_app", "destination_version"),
        *("destination_service", "destination_service_name", "destination_service_namespace", "destination_cluster"),
        *("request_protocol", "response_code", "response_flags", "grpc_response_status", "connection_security_policy"),
        *("destination_port", "request_operation", "request_host", "component", "tag", "cache", "wasm_filter"),
    )
)
"""Istio's form ``label=.=value;.;``, with the labels of its bootstrap configuration."""
HIGRESS = (
    Tag("ai_route", r"^wasmcustom\.route\.((.*?)\.)upstream\.", (".upstream.",)),
    Tag("ai_cluster", r"^wasmcustom\..*?upstream\.((.*?)\.)model\.", (".model.",)),
    Tag("ai_model", r"^wasmcustom\..*?model\.((.*?)\.)(?:consumer|metric)\.", (".consumer.", ".metric.")),
    Tag("ai_consumer", r"^wasmcustom\..*?consumer\.((.*?)\.)metric\.", (".metric.",)),
)
"""The tags of Higress's bootstrap configuration, for its plugin ai-statistics."""
KUADRANT: tuple[Tag, ...] = ()
"""Names of Kuadrant's wasm-shim (``kuadrant.hits``, ``kuadrant.denied``, …) contain no labels."""
SETS: Mapping[str, tuple[Tag, ...]] = {"envoy": ENVOY, "istio": ISTIO, "kuadrant": KUADRANT, "higress": HIGRESS}


class Snapshots(Protocol):
    """Metrics that can be shown: `InMemoryMetrics`, `SharedMetrics`."""

    def snapshot(self) -> Snapshot:
        """All metrics."""
        ...


class FilterMetrics:
    """A collector of the metrics of filters, for a `prometheus_client.CollectorRegistry`.

    Args:
        metrics: those of the services; with ``shared="processes"`` each process shows the totals of all.
        tags: labels to extract from names, in this order: `ENVOY`, `ISTIO`, `KUADRANT`, `HIGRESS`, or your own.
        prefix: precedes all names.
    """

    def __init__(self, metrics: Snapshots, *, tags: Iterable[Tag] = (), prefix: str = PREFIX) -> None:
        if not callable(getattr(metrics, "snapshot", None)):
            raise TypeError(f"metrics must have a method snapshot, as InMemoryMetrics() has; not {metrics!r}")
        self._metrics = metrics
        self._tags = tuple(tags)
        self._prefix = prefix

    def describe(self) -> Iterator[Metric]:
        """Nothing, because filters define their metrics while they run."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The families that the registry collects."""
        return families(self._metrics.snapshot(), self._tags, self._prefix)


def families(metrics: Snapshot, tags: Sequence[Tag] = (), prefix: str = PREFIX) -> Iterator[Metric]:
    """Metrics of guests, as `InMemoryMetrics.snapshot` returns them, as families of Prometheus.

    `tags` and `prefix` are those of `FilterMetrics`.
    """
    made: dict[tuple[str, str], Metric] = {}
    seen: set[tuple[str, str, tuple[tuple[str, str], ...]]] = set()
    taken: set[str] = set()
    left = MAX_NAMES
    for key, kind, suffixes in KINDS:
        for name, value in sorted(metrics[key].items()):
            left -= len(name)
            rest, labels = _labelled(name, tags if left >= 0 and len(name) <= MAX_NAME else ())
            clean = prefix + re.sub(r"[^a-zA-Z0-9_]", "_", rest)
            base = clean.removesuffix("_total") if kind == "counter" else clean
            mark = key, base, tuple(sorted(labels.items()))
            if mark in seen or not labels:
                labels["name"] = name
            seen.add(mark)
            family = made.get((key, base))
            if family is None:
                family = made[key, base] = Metric(_free(base, kind, suffixes, taken), "Of a filter.", kind)
            _add(family, labels, value)
    yield from made.values()


def _labelled(name: str, tags: Sequence[Tag]) -> tuple[str, dict[str, str]]:
    """A name without its labels, and the labels."""
    rest, labels = f"wasmcustom.{name}", {}
    for tag in tags:
        found = tag.taken(rest)
        if found is not None:
            rest, labels[tag.name] = found
    return (rest.removeprefix("wasmcustom.").strip(".;") if labels else name), labels


def _free(base: str, kind: str, suffixes: tuple[str, ...], taken: set[str]) -> str:
    """An unused name for a family: its own, or with its kind and a number appended."""
    if not re.match(r"[a-zA-Z_]", base):
        base = f"_{base}"
    name, number = base, 1
    while (names := {name, *(name + suffix for suffix in suffixes)}) & taken:
        name = f"{base}_{kind}" if number == 1 else f"{base}_{kind}_{number}"
        number += 1
    taken |= names
    return name


def _add(family: Metric, labels: dict[str, str], value: Any) -> None:
    name = family.name
    if family.type != "histogram":
        family.add_sample(f"{name}_total" if family.type == "counter" else name, labels, value)
        return
    total = 0
    for bound, count in zip([*value["bounds"], float("inf")], value["counts"], strict=True):
        total += count
        shown = "+Inf" if bound == float("inf") else str(float(bound))
        family.add_sample(f"{name}_bucket", {**labels, "le": shown}, total)
    family.add_sample(f"{name}_count", labels, total)
    family.add_sample(f"{name}_sum", labels, value["sum"])

"""Metrics. The two lowest bits of an id are the kind; ids of a kind count in steps of 4 (``wasm.h`` of Envoy's host).

Each definition of a metric returns a new id for it. Some filters define their metrics in each request. Their ids must
not accumulate, so after `MANY` ids of a kind a known metric gets its last id again.
"""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal, misuse
from proxywasm_host.abi.types import MetricType, Status

COUNTER, GAUGE = int(MetricType.COUNTER), int(MetricType.GAUGE)  # members of an enumeration are slow
STEP = 4
KIND = STEP - 1
"""The bits of an id that are the kind of its metric."""
MANY = 1 << 16


def proxy_define_metric(vm: VmState, type: int, name: bytes) -> int:
    """Define a metric. Returns its id (``defineMetric`` in ``context.cc``)."""
    names, ids = vm.metrics[type]
    text = name.decode("utf-8", "replace")
    if vm.profile.prefixed_metrics:
        text = f"pw:{vm.context.root.name}:{text}"
    known = ids.get(text)
    if known is None:
        vm.services.metrics.define(type, text)
    elif len(names) >= MANY:
        return known
    else:
        text = names[known // STEP - 1]
    names.append(text)
    id = ids[text] = STEP * len(names) + type
    return id


def find(vm: VmState, metric: int) -> str | None:
    """The name of a metric, if the guest has defined it."""
    kind, number = metric & KIND, metric // STEP
    if kind < len(vm.metrics) and 0 < number <= len(vm.metrics[kind][0]):
        return vm.metrics[kind][0][number - 1]
    return None


def unknown(metric: int) -> Refusal:
    """NOT_FOUND, for an id that the guest has not defined."""
    return Refusal(Status.NOT_FOUND, "no metric has the id {0}", metric)


def proxy_increment_metric(vm: VmState, metric: int, offset: int) -> Refusal | None:
    """Add to a counter or a gauge. BAD_ARGUMENT for a histogram, and for a counter unless `offset` is greater than 0.

    Source: ``incrementMetric`` in ``context.cc``.
    """
    kind = metric & KIND
    if vm.profile.prefixed_metrics and kind != COUNTER:
        return misuse(vm, "can only increment counters, and metric {0} is not one", metric)
    if kind not in (COUNTER, GAUGE):
        return Refusal(
            Status.BAD_ARGUMENT, "metric {0} is a histogram: it cannot be incremented, only recorded", metric
        )
    if kind == COUNTER and offset <= 0:
        return Refusal(Status.BAD_ARGUMENT, "counter {0} cannot shrink: {1} was added", metric, offset)
    name = find(vm, metric)
    if name is None:
        return unknown(metric)
    vm.services.metrics.add(kind, name, offset)
    return None


def proxy_record_metric(vm: VmState, metric: int, value: int) -> Refusal | None:
    """Set a gauge, add a value to a histogram, or, in Envoy, add to a counter (``recordMetric`` in ``context.cc``)."""
    kind, name = metric & KIND, find(vm, metric)
    if name is None:
        return unknown(metric)
    if kind != COUNTER:
        vm.services.metrics.record(kind, name, value)
    elif vm.profile.counter_record_adds:
        vm.services.metrics.add(kind, name, value)
    else:
        return misuse(vm, "counter {0!r} can be incremented, but not set", name)
    return None


def proxy_get_metric(vm: VmState, metric: int) -> int | Refusal:
    """The value of a counter or gauge, as 64 bits; a histogram is BAD_ARGUMENT (``getMetric`` in ``context.cc``)."""
    kind = metric & KIND
    if kind not in (COUNTER, GAUGE):
        return misuse(vm, "metric {0} is a histogram, which has no single value", metric)
    name = find(vm, metric)
    if name is None:
        return unknown(metric)
    return vm.services.metrics.get(kind, name) & 0xFFFFFFFFFFFFFFFF

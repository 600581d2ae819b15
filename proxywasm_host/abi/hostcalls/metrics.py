"""Metrics. An id tells its kind in its two lowest bits and counts in steps of 4, as in Envoy."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.types import MetricType, Status

STEP = 4


def proxy_define_metric(vm: VmState, type: int, name: bytes) -> int:
    metric = (type, name.decode("utf-8", "replace"))
    for known, of in vm.metrics.items():
        if of == metric:
            return known
    id = STEP * (1 + sum(kind == type for kind, _ in vm.metrics.values())) + type
    vm.metrics[id] = metric
    vm.services.metrics.define(*metric)
    return id


def unknown(metric: int) -> Refusal:
    return Refusal(Status.NOT_FOUND, "no metric has the id {0}", metric)


def proxy_increment_metric(vm: VmState, metric: int, offset: int) -> Refusal | None:
    found = vm.metrics.get(metric)
    if found is None:
        return unknown(metric)
    kind, name = found
    if kind == MetricType.HISTOGRAM:
        return Refusal(Status.BAD_ARGUMENT, "histogram {0!r} cannot be incremented, only recorded", name)
    if kind == MetricType.COUNTER and offset <= 0:
        return Refusal(Status.BAD_ARGUMENT, "counter {0!r} only grows, {1} was to be added", name, offset)
    vm.services.metrics.add(kind, name, offset)
    return None


def proxy_record_metric(vm: VmState, metric: int, value: int) -> Refusal | None:
    found = vm.metrics.get(metric)
    if found is None:
        return unknown(metric)
    kind, name = found
    if kind != MetricType.COUNTER:
        vm.services.metrics.record(kind, name, value)
    elif vm.profile.counter_record_adds:
        vm.services.metrics.add(kind, name, value)
    else:
        return Refusal(Status.BAD_ARGUMENT, "counter {0!r} can be incremented, but not set", name)
    return None


def proxy_get_metric(vm: VmState, metric: int) -> int | Refusal:
    found = vm.metrics.get(metric)
    if found is None:
        return unknown(metric)
    kind, name = found
    if kind == MetricType.HISTOGRAM:
        return Refusal(Status.BAD_ARGUMENT, "histogram {0!r} has no one value", name)
    return vm.services.metrics.get(kind, name) & 0xFFFFFFFFFFFFFFFF

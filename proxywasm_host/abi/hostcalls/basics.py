"""Logging, time, the status of the last callout, ticks."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.table import LINE

CUT = "… (cut)".encode()
"""Appended to the kept part of a line that is too long."""


def proxy_log(vm: VmState, level: int, message: bytes) -> Refusal | None:
    """Log a line (specification, "Logging").

    A line that is too long is cut and not refused, because SDKs do not expect logging to fail.
    """
    vm.log(level, message if len(message) < LINE else message + CUT)
    return None


def proxy_get_log_level(vm: VmState) -> int:
    """The lowest level that is logged, so that guests need not format other lines (``getLogLevel``, ``context.cc``)."""
    return vm.services.log.level


def proxy_get_current_time_nanoseconds(vm: VmState) -> int:
    """Wall-clock time, in nanoseconds since 1970 (``getCurrentTimeNanoseconds`` in ``context.cc``)."""
    return vm.services.clock.time_ns()


def proxy_get_status(vm: VmState) -> tuple[int, bytes]:
    """Code and message of the last callout's reply, of the root context (``getStatus`` in ``context.cc``)."""
    code, message = vm.context.root.status
    return code & 0xFFFFFFFF, message  # a server may send any number as its gRPC status


def proxy_set_tick_period_milliseconds(vm: VmState, period: int) -> Refusal | None:
    """Call ``on_tick`` of the plugin every `period` milliseconds; 0 stops it (``setTimerPeriod`` in ``context.cc``)."""
    vm.context.root.set_tick_period(period)
    return None


def emscripten_notify_memory_growth(vm: VmState, memory: int) -> None:
    """Do nothing, as Envoy's host. Emscripten calls it after memory has grown, which the marshaller notices itself."""


def pthread_equal(vm: VmState, left: int, right: int) -> Refusal | None:
    """Whether two threads are the same; the result is returned instead of a status (as in Envoy's ``exports.cc``)."""
    return Refusal(1, "equal") if left == right else None

"""Logging, time, the status of the last callout, ticks."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.hostcalls.quota import within_quota
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.table import LINE

CUT = "… (cut)".encode()
"""Behind the beginning of a line that is too long."""


def proxy_log(vm: VmState, level: int, message: bytes) -> Refusal | None:
    """A line that is too long is cut and not refused: SDKs take it for granted that they can log."""
    vm.log(level, message if len(message) < LINE else message + CUT)
    return None


def proxy_get_log_level(vm: VmState) -> int:
    return vm.services.log.level


def proxy_get_current_time_nanoseconds(vm: VmState) -> int:
    return vm.services.clock.time_ns()


def proxy_get_status(vm: VmState) -> tuple[int, bytes]:
    code, message = vm.context.root.status
    return code & 0xFFFFFFFF, message  # a server may have sent any number as its gRPC status


@within_quota
def proxy_set_tick_period_milliseconds(vm: VmState, period: int) -> Refusal | None:
    vm.context.root.set_tick_period(period)
    return None


def emscripten_notify_memory_growth(vm: VmState, memory: int) -> None:
    """Nothing to do: the marshaller notices growth by itself."""


def pthread_equal(vm: VmState, left: int, right: int) -> Refusal | None:
    """Whether two threads are one. Its result is not a status, but travels the same way."""
    return Refusal(1, "equal") if left == right else None

"""INTERNAL_FAILURE: the answer of a hostcall for which the host would keep too much, or a service does not answer.

That is Envoy's answer where a circuit breaker lets no more callouts through; for all else it has no limit, and
ngx_wasm_module ends the guest where a memory zone of its is full.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.types import Status
from proxywasm_host.services import QuotaExceeded, ServiceUnavailable

__all__ = ["NOT_DONE", "not_done", "within_quota"]

NOT_DONE = (QuotaExceeded, ServiceUnavailable)

R = TypeVar("R")


def not_done(error: Exception) -> Refusal:
    """INTERNAL_FAILURE, with what is full or does not answer."""
    return Refusal(Status.INTERNAL_FAILURE, "{0}", str(error))


def within_quota(handler: Callable[..., R]) -> Callable[..., R | Refusal]:
    """A handler that refuses where what it calls raises one of `NOT_DONE`."""

    @wraps(handler)
    def call(*args: object) -> R | Refusal:
        try:
            return handler(*args)
        except NOT_DONE as error:
            return not_done(error)

    return call

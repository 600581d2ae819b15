"""Services outside of this process: the error if one does not answer, and a limit of the time lost on it."""

from __future__ import annotations

import time
from collections.abc import Callable

from proxywasm_host.errors import ProxyWasmError

__all__ = ["Breaker", "ServiceUnavailable"]

PAUSE = 1.0
"""Seconds for which a service that did not answer is not called again."""


class ServiceUnavailable(ProxyWasmError):
    """A service outside of this process cannot be reached. The guest gets INTERNAL_FAILURE.

    If only the answer was lost, the service has made the change nevertheless.
    """

    code = "service_unavailable"


class Breaker:
    """Fails hostcalls without waiting for `PAUSE` seconds after the service did not answer."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._until = 0.0
        self._reason = ""

    def check(self) -> None:
        """Check that the service may be called. Raises: ServiceUnavailable, within `PAUSE` seconds after a failure."""
        if self._until and self._clock() < self._until:
            raise ServiceUnavailable(f"{self._what} did not answer a moment ago: {self._reason}")

    def failed(self, reason: object) -> ServiceUnavailable:
        """Note a failure, and return the error to raise."""
        self._until, self._reason = self._clock() + PAUSE, str(reason)
        return ServiceUnavailable(f"{self._what} does not answer: {self._reason}")

"""Services outside of this process: what is raised when one does not answer, and how little time that may take."""

from __future__ import annotations

import time
from collections.abc import Callable

from proxywasm_host.errors import ProxyWasmError

__all__ = ["Breaker", "ServiceUnavailable"]

PAUSE = 1.0
"""Seconds for which a service that did not answer is not asked again."""


class ServiceUnavailable(ProxyWasmError):
    """What is kept outside of this process cannot be reached: the guest is told INTERNAL_FAILURE.

    Whether a change was made is not known if the answer is what did not come.
    """

    code = "service_unavailable"


class Breaker:
    """Lets no hostcall wait for a service that has just not answered: one wait in `PAUSE` seconds is enough."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._until = 0.0
        self._reason = ""

    def check(self) -> None:
        """Raises: ServiceUnavailable, if the service has failed less than `PAUSE` seconds ago."""
        if self._until and self._clock() < self._until:
            raise ServiceUnavailable(f"{self._what} did not answer a moment ago: {self._reason}")

    def failed(self, reason: object) -> ServiceUnavailable:
        """Note that it did not answer. Returns what to raise."""
        self._until, self._reason = self._clock() + PAUSE, str(reason)
        return ServiceUnavailable(f"{self._what} does not answer: {self._reason}")

"""The health of filters. Failures are logged and counted for `FilterStatus`.

Rules of this module:

* A failure is reported once, in full. A plugin that keeps failing gets one report per `REPORT_INTERVAL` seconds, with
  the number of failures that were not reported.
* Failures are noted in the thread of the host; `status` may be called in any thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Union

from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["FilterHealth", "FilterStatus", "OnFailure", "watch"]

REPORT_INTERVAL = 10.0
WORDS = {"stub": "stub", "refused": "refused hostcall"}
State = Literal["loading", "running", "failed", "bypassed"]
OnFailure = Union[Callable[[Plugin, Failure], None], None]
"""Called with each failure, in the thread of the host; it must not feed the host."""


@dataclass(frozen=True)
class FilterStatus:
    """The state of one filter.

    Args:
        name: the name of the plugin.
        state: ``loading`` until it is loaded; ``running``; ``failed`` while new streams are answered with 503 (with
            ``fail_reload`` only until the next stream, or a second later, starts a new guest); ``bypassed`` while new
            streams pass without it (``fail_open``).
        reloads: how often a new guest has replaced a failed one.
        failures: how often it has failed.
        last_failure: the last failure.
    """

    name: str
    state: State
    reloads: int = 0
    failures: int = 0
    last_failure: Failure | None = None


class FilterHealth:
    """Watches one plugin, as an entry of its `Plugin.on_failure`."""

    def __init__(
        self,
        plugin: Plugin,
        logger: logging.Logger,
        on_failure: OnFailure = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plugin = plugin
        self.failures = 0
        self.last_failure: Failure | None = None
        self._logger = logger
        self._on_failure = on_failure
        self._clock = clock
        self._reported_at = float("-inf")
        self._unreported = 0
        plugin.on_failure.append(self)

    def __call__(self, failure: Failure) -> None:
        """Count a failure of the plugin's guest, and report it."""
        self.failures += 1
        self.last_failure = failure
        now = self._clock()
        if now - self._reported_at < REPORT_INTERVAL:
            self._unreported += 1
        else:
            unreported = f"\n  failures not reported before: {self._unreported}" if self._unreported else ""
            self._reported_at, self._unreported = now, 0
            self._logger.error("%s%s", failure.report(), unreported)
        if self._on_failure is not None:
            try:
                self._on_failure(self.plugin, failure)
            except Exception:
                self._logger.exception("on_failure raised")

    def status(self) -> FilterStatus:
        """The present state of the plugin. It may be called in any thread."""
        plugin = self.plugin
        state: State = "bypassed" if plugin._bypassed else "failed" if plugin.failure else "running"
        return FilterStatus(plugin.name, state, plugin.reloads, self.failures, self.last_failure)


def watch(plugins: Sequence[Plugin], logger: logging.Logger, on_failure: OnFailure = None) -> list[FilterHealth]:
    """Watch each plugin of a chain, and log which of its hostcalls this host lacks."""
    for plugin in plugins:
        for one in plugin.imports:
            if one.status != "have" and one.name.startswith("env."):
                logger.info("%s: %s is a %s: %s", plugin.name, one.name, WORDS[one.status], one.reason)
    return [FilterHealth(plugin, logger, on_failure) for plugin in plugins]

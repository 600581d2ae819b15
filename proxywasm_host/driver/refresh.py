"""Finds newer modules for a running chain, by looking up references with the policy ``Always`` at intervals.

Rules of this module:

* Filters are checked one by one, and a chain changes one filter at a time. So a broken image affects only its own
  filter, which keeps its last good module.
* After a module could not be loaded, its filter is not tried again until the reference names a different module.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from proxywasm_host.fetch.reference import reference_of
from proxywasm_host.runtime.filter_config import FilterConfig

__all__ = ["Refresher"]

Chain = list[FilterConfig]


class Refresher:
    """The filters of a chain, and newer modules for them.

    Args:
        filters: the filters as configured.
        pinned: the same filters with the digests of the loaded modules (`filters.pin`).
        pin: `Host.pin` of the filters' host.
    """

    def __init__(
        self, filters: Sequence[FilterConfig], pinned: Chain, pin: Callable[[FilterConfig], FilterConfig]
    ) -> None:
        self.pinned = pinned
        self._pin = pin
        self._changing = {place: filter for place, filter in enumerate(filters) if _may_change(filter)}
        self._refused: dict[int, str] = {}
        """The last digest that could not be loaded, by place."""
        self._said: dict[int, str] = {}
        """The last error of a look-up, by place."""

    @property
    def places(self) -> list[int]:
        """The places of filters whose modules may change."""
        return list(self._changing)

    def newer(self, place: int, logger: logging.Logger) -> Chain | None:
        """The chain with a newer module for one filter, or ``None``. Waits for a server."""
        filter = self._changing[place]
        try:
            found = self._pin(filter)
        except Exception as error:  # noqa: BLE001 - it is logged
            if self._said.get(place) != str(error):
                self._said[place] = str(error)
                logger.warning("%s: cannot get a newer module: %s", filter.code, error)
            return None
        self._said.pop(place, None)
        if found.sha256 in (self.pinned[place].sha256, self._refused.get(place)):
            return None
        return [*self.pinned[:place], replace(self.pinned[place], sha256=found.sha256), *self.pinned[place + 1 :]]

    def loaded(self, chain: Chain, place: int, logger: logging.Logger) -> None:
        """Note that a chain of `newer` has replaced the old one."""
        self.pinned = chain
        logger.info("%s: loaded %s; current requests end with the old module", chain[place].code, chain[place].sha256)

    def refused(self, chain: Chain, place: int, error: Exception, logger: logging.Logger) -> None:
        """Note that a chain of `newer` could not be loaded."""
        self._refused[place] = chain[place].sha256
        kept = self.pinned[place].sha256
        logger.error("%s cannot be loaded, %s stays: %s", chain[place].sha256, kept, error)


def _may_change(filter: FilterConfig) -> bool:
    """Whether a filter's module may be replaced while it runs."""
    if isinstance(filter.code, bytes) or filter.sha256:
        return False
    reference = reference_of(str(filter.code))
    if reference is None or reference.digest:
        return False
    return (filter.pull_policy or reference.policy) == "Always"

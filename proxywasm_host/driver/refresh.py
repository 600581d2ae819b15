"""Newer modules for a serving chain: references with the policy ``Always`` are looked up again at intervals.

Rules of this module:

* Filters are checked one by one, and a chain changes in one filter at a time: a broken image keeps only its own filter
  at the last good module.
* A module that could not be loaded is not tried again until its reference names another.
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
        filters: as they were configured.
        pinned: the same with the digests that are loaded (`filters.pin`).
        pin: `Host.pin` of a host that takes these filters.
    """

    def __init__(
        self, filters: Sequence[FilterConfig], pinned: Chain, pin: Callable[[FilterConfig], FilterConfig]
    ) -> None:
        self.pinned = pinned
        self._pin = pin
        self._changing = {place: filter for place, filter in enumerate(filters) if _may_change(filter)}
        self._refused: dict[int, str] = {}
        """Digests that could not be loaded, by place."""
        self._said: dict[int, str] = {}
        """Why references could not be looked up."""

    @property
    def places(self) -> list[int]:
        """The places in the chain of filters whose modules may change."""
        return list(self._changing)

    def newer(self, place: int, logger: logging.Logger) -> Chain | None:
        """The chain with the newer module of one filter, if there is one. Waits for a server."""
        filter = self._changing[place]
        try:
            found = self._pin(filter)
        except Exception as error:  # noqa: BLE001 - it is told
            if self._said.get(place) != str(error):
                self._said[place] = str(error)
                logger.warning("%s: cannot get a newer module: %s", filter.code, error)
            return None
        self._said.pop(place, None)
        if found.sha256 in (self.pinned[place].sha256, self._refused.get(place)):
            return None
        return [*self.pinned[:place], replace(self.pinned[place], sha256=found.sha256), *self.pinned[place + 1 :]]

    def loaded(self, chain: Chain, place: int, logger: logging.Logger) -> None:
        """A chain of `newer` has replaced the old one."""
        self.pinned = chain
        logger.info("%s: loaded %s; current requests end with the old module", chain[place].code, chain[place].sha256)

    def refused(self, chain: Chain, place: int, error: Exception, logger: logging.Logger) -> None:
        """A chain of `newer` could not be loaded."""
        self._refused[place] = chain[place].sha256
        kept = self.pinned[place].sha256
        logger.error("%s cannot be loaded, %s stays: %s", chain[place].sha256, kept, error)


def _may_change(filter: FilterConfig) -> bool:
    """Whether a filter's module may be replaced while it is used."""
    if isinstance(filter.code, bytes) or filter.sha256:
        return False
    reference = reference_of(str(filter.code))
    if reference is None or reference.digest:
        return False
    return (filter.pull_policy or reference.policy) == "Always"

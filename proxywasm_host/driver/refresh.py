"""Newer modules for a chain that serves: references with the policy ``Always`` are looked up again from time to time.

Rules of this module:

* Filters are looked at one by one, and a chain changes in one filter at a time: an image that is broken keeps its own
  filter at the last good module, and no other from a new one.
* A module that could not be loaded is not tried again until its reference stands for another.
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
        """Why a reference could not be looked up."""

    @property
    def places(self) -> list[int]:
        """The places in the chain of filters whose modules may change."""
        return list(self._changing)

    def newer(self, place: int, logger: logging.Logger) -> Chain | None:
        """The chain with the newer module of one filter, if there is one. Takes as long as a server takes."""
        filter = self._changing[place]
        try:
            found = self._pin(filter)
        except Exception as error:  # noqa: BLE001 - it is told
            if self._said.get(place) != str(error):
                self._said[place] = str(error)
                logger.warning("%s: no newer module is had: %s", filter.code, error)
            return None
        self._said.pop(place, None)
        if found.sha256 in (self.pinned[place].sha256, self._refused.get(place)):
            return None
        return [*self.pinned[:place], replace(self.pinned[place], sha256=found.sha256), *self.pinned[place + 1 :]]

    def loaded(self, chain: Chain, place: int, logger: logging.Logger) -> None:
        """A chain that `newer` gave has taken the place of the one before."""
        self.pinned = chain
        logger.info("%s: loaded %s; requests under way end on what was before", chain[place].code, chain[place].sha256)

    def refused(self, chain: Chain, place: int, error: Exception, logger: logging.Logger) -> None:
        """A chain that `newer` gave could not be loaded."""
        self._refused[place] = chain[place].sha256
        kept = self.pinned[place].sha256
        logger.error("%s cannot be loaded, %s stays: %s", chain[place].sha256, kept, error)


def _may_change(filter: FilterConfig) -> bool:
    """Whether another module may take the place of a filter's while it is used."""
    if isinstance(filter.code, bytes) or filter.sha256:
        return False
    reference = reference_of(str(filter.code))
    if reference is None or reference.digest:
        return False
    return (filter.pull_policy or reference.policy) == "Always"

"""Resolves names of hosts to addresses, with the system's resolver."""

from __future__ import annotations

import socket
from typing import Any

import anyio

from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.in_loop import InLoop
from proxywasm_host.runtime.effects import CalloutFailed, NameLookup, NameLookupReply

__all__ = ["AsyncNameClient", "NameClient"]

FAILURES = (OSError, UnicodeError)
"""The errors of `socket.getaddrinfo`: an unknown name, or an invalid one."""


def _first(found: list[tuple[Any, ...]]) -> NameLookupReply:
    """The first address, which is the one that the system prefers."""
    family, *_, address = found[0]
    return NameLookupReply(socket.inet_pton(family, address[0].partition("%")[0]))


class AsyncNameClient:
    """Resolves names in an event loop."""

    def __init__(self, clusters: Clusters) -> None:
        pass

    async def __call__(self, callout: NameLookup, /) -> NameLookupReply | CalloutFailed:
        """Resolve the name of a host. The address or the failure is the reply."""
        try:
            return _first(await anyio.getaddrinfo(callout.cluster, None, type=socket.SOCK_STREAM))
        except FAILURES as error:
            return CalloutFailed(str(error))

    async def aclose(self) -> None:
        """Close nothing."""


class NameClient(InLoop[NameLookup, NameLookupReply]):
    """Resolves names for threads; several may use it."""

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(AsyncNameClient(clusters))

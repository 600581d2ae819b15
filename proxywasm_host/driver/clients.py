"""The library's own clients, for callouts for which the embedder has no client.

A client is made at the first callout of its kind, so packages that are not used need not be installed.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.dispatch import logger
from proxywasm_host.runtime.effects import (
    Callout,
    CalloutFailed,
    GrpcCall,
    GrpcStream,
    HttpCall,
    NameLookup,
    RedisCall,
    Reply,
)

__all__ = ["AsyncClients", "Clients"]

MODULES: dict[type[Callout], tuple[str, str]] = {
    HttpCall: ("proxywasm_host.driver.http", "HttpClient"),
    GrpcCall: ("proxywasm_host.driver.grpc", "GrpcClient"),
    GrpcStream: ("proxywasm_host.driver.grpc", "GrpcClient"),
    RedisCall: ("proxywasm_host.driver.redis", "RedisClient"),
    NameLookup: ("proxywasm_host.driver.names", "NameClient"),
}
"""Module and class of each client; classes for event loops have the prefix ``Async``. Code with callouts of another
kind adds its client here."""


class _Clients:
    prefix = ""

    def __init__(self, clusters: Clusters) -> None:
        self.clusters = clusters
        self._made: dict[str, Any] = {}
        self._told: set[str] = set()

    def _client(self, kind: type[Callout]) -> Any:
        """The client for callouts of this kind. Raises: ModuleNotFoundError, with the package to install."""
        module, name = MODULES[kind]
        if module not in self._made:
            found = getattr(import_module(module), self.prefix + name)
            self._made[module] = found(self.clusters)
        return self._made[module]

    def _missing(self, kind: type[Callout], error: ModuleNotFoundError) -> CalloutFailed:
        """Log once that a package must be installed."""
        if kind.__name__ not in self._told:
            self._told.add(kind.__name__)
            logger.error("cannot make callouts of type %s: %s", kind.__name__, error)
        return CalloutFailed(str(error))


class AsyncClients(_Clients):
    """Clients for one event loop."""

    prefix = "Async"

    async def __call__(self, callout: Callout, /, *conversation: Any) -> Reply:
        """Make a callout. Its result or its failure is the reply."""
        try:
            client = self._client(type(callout))
        except ModuleNotFoundError as error:
            return self._missing(type(callout), error)
        reply: Reply = await client(callout, *conversation)
        return reply

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._made.values():
            await client.aclose()


class Clients(_Clients):
    """Clients for all threads of a driver."""

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(clusters)
        self._making = threading.Lock()

    def _client(self, kind: type[Callout]) -> Any:
        with self._making:
            return super()._client(kind)

    def __call__(self, callout: Callout, /, *conversation: Any) -> Reply:
        """Make a callout. Its result or its failure is the reply."""
        try:
            client = self._client(type(callout))
        except ModuleNotFoundError as error:
            return self._missing(type(callout), error)
        reply: Reply = client(callout, *conversation)
        return reply

    def cancel(self, callout: Callout) -> None:
        """Cancel a callout, if its client supports that."""
        client = self._made.get(MODULES[type(callout)][0])
        if client is not None:
            client.cancel(callout)

    def close(self) -> None:
        """Close all connections."""
        for client in self._made.values():
            client.close()

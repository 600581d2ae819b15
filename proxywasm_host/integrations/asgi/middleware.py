"""The ASGI middleware.

Rules of this module:

* Requests of HTTP pass the filters; everything else passes untouched.
* Each event loop has a worker with VMs of its own. It starts and stops with the application's lifespan; where a server
  or an application has none, it starts with the first request.
* The chain is read when a request begins, so that another one can take its place at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Union

import anyio
from anyio.lowlevel import current_token

from proxywasm_host.abi.profile import ENVOY, Profile
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.asynchronous import AsyncClient
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import AnyFilter
from proxywasm_host.driver.worker import Worker
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.integrations.asgi.exchange import Exchange
from proxywasm_host.integrations.asgi.scope import Message, Receive, Scope, ScopeProperties, Send
from proxywasm_host.integrations.properties import of_this_node
from proxywasm_host.runtime.effects import Callout
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plain import BUFFER_LIMIT
from proxywasm_host.runtime.trace import Listener
from proxywasm_host.services import Services

__all__ = ["ProxyWasmMiddleware"]

Properties = Union[Mapping[str, PropertyValue], Callable[[Scope], Mapping[str, PropertyValue]]]


class ProxyWasmMiddleware:
    """Runs filters in front of an ASGI application.

    Args:
        app: the application.
        filters: the chain, in the order of the request: paths, modules, or `Filter`s with their configuration.
        clusters: where callouts go, by name: `Clusters`, or a mapping of names to URLs.
        properties: properties of all streams, or a function that makes those of a request from its scope.
        buffer_limit: bytes of a body that filters may hold back.
        mend_framing: correct, or leave out, a ``content-length`` that filters may have made wrong.
        clients: who makes callouts, by the effect's type; see `AsyncDriver`.
        services, engine, profile, limits, listener: of the hosts that are made, one for each event loop. All share
            these services.

    Filters load when the application starts, and what is wrong with them is raised there.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        filters: Iterable[AnyFilter],
        *,
        clusters: Mapping[str, Cluster | str] | None = None,
        properties: Properties | None = None,
        buffer_limit: int = BUFFER_LIMIT,
        mend_framing: bool = True,
        clients: Mapping[type[Callout], AsyncClient] | None = None,
        services: Services | None = None,
        engine: str | Engine | None = None,
        profile: str | Profile = ENVOY,
        limits: Limits | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.app = app
        self.filters = list(filters)
        services = Services() if services is None else services
        if clusters is not None:
            clusters = clusters if isinstance(clusters, Clusters) else Clusters(clusters)
            services = replace(services, clusters=clusters)
        self._properties = {} if properties is None else properties
        fixed = of_this_node({} if callable(self._properties) else self._properties)
        self._make_host = lambda: Host(
            engine, profile=profile, services=services, limits=limits, properties=fixed, listener=listener
        )
        self._clients = clients
        self._buffer_limit = buffer_limit
        self._mend_framing = mend_framing
        self._workers: dict[object, Worker] = {}
        self._tasks: set[object] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    # -- Requests ------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        worker = self._workers.get(current_token().native_token) or self._start()
        if not worker.running:
            await worker.ready()
        given = self._properties(scope) if callable(self._properties) else self._properties
        stream = worker.host.http_stream(
            worker.plugins, properties=ScopeProperties(scope, given), buffer_limit=self._buffer_limit
        )
        exchange = Exchange(worker, stream, scope, receive, send, mend_framing=self._mend_framing)
        await exchange.run(self.app)

    async def reload(self, filters: Iterable[AnyFilter]) -> None:
        """Let other filters take the place of those that run in this event loop, without losing a request.

        They load beside the old ones; new requests get them as soon as all have loaded, requests in progress end on
        the old ones. Raises: as `Host.load_plugin`; then nothing has changed.
        """
        filters = list(filters)
        worker = self._workers.get(current_token().native_token) or self._start()
        await worker.ready()
        await worker.reload(filters)
        self.filters = filters

    # -- Workers -------------------------------------------------------------------------------------------------

    def _start(self) -> Worker:
        """Start a worker in this event loop. It ends when it is stopped, or with the loop."""
        for token in [token for token in self._workers if getattr(token, "is_closed", bool)()]:
            del self._workers[token]
        loop = current_token().native_token
        worker = self._workers[loop] = Worker(self._make_host, self.filters, self._clients)
        if isinstance(loop, asyncio.AbstractEventLoop):
            task = loop.create_task(worker.run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            import trio  # noqa: PLC0415 - it runs

            trio.lowlevel.spawn_system_task(worker.run)
        return worker

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        worker = self._start()
        said = False

        async def stopping(message: Message) -> None:
            nonlocal said
            said = True
            if message["type"].startswith("lifespan.shutdown"):
                await worker.stop()
            await send(message)

        try:
            await worker.ready()
        except Exception as error:  # noqa: BLE001 - the server says it
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        try:
            await self.app(scope, receive, stopping)
        except Exception:
            if said:
                raise
            # The application has no lifespan, as its server would find out; the filters have one.
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await stopping({"type": "lifespan.shutdown.complete"})
        finally:
            self._workers.pop(current_token().native_token, None)
            with anyio.CancelScope(shield=True):
                await worker.stop()

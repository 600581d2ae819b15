"""Performs the effects of plugins: sleeps, HTTP requests, connections, calls to plugin servers."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Union

import anyio
import httpx2
from anyio.abc import ByteStream, ConnectedUDPSocket

from proxywasm_host.driver import clients
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.in_loop import InLoop
from proxywasm_host.kong.plugin import Close, Connect, HttpReply, HttpRequest, Receive, Send, ServerCall, Sleep
from proxywasm_host.kong.servers.pool import Ask, AsyncPool, describe
from proxywasm_host.kong.task import Answer, PluginCallout
from proxywasm_host.runtime.effects import CalloutFailed

__all__ = ["AsyncPluginClient", "PluginClient"]

MOST = 64 << 20
"""Most bytes of a response's body."""


class AsyncPluginClient:
    """Performs effects in one event loop."""

    def __init__(self, clusters: Clusters) -> None:
        self._http: dict[bool, httpx2.AsyncClient] = {}
        self._pools: dict[str, AsyncPool] = {}

    async def __call__(self, callout: PluginCallout, /) -> Union[Answer, CalloutFailed]:
        """Perform one effect. Returns its result or its failure."""
        effect = callout.effect
        try:
            if isinstance(effect, ServerCall):
                return Answer(await self._pool(callout, effect)(_ask(effect)))
            if isinstance(effect, Sleep):
                await anyio.sleep(effect.seconds)
                return Answer()
            if isinstance(effect, HttpRequest):
                return Answer(await self._request(effect))
            if isinstance(effect, Connect):
                with anyio.fail_after(effect.timeout):
                    return Answer(await _connect(effect))
            return Answer(await _on_connection(effect))
        except (TimeoutError, httpx2.TimeoutException):
            return CalloutFailed("timeout")
        except socket.gaierror:
            return CalloutFailed("host not found")
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return CalloutFailed("closed")
        except httpx2.ConnectError:
            return CalloutFailed("connection refused")
        except Exception as error:  # noqa: BLE001 - the plugin waits for an answer
            # anyio raises one error for all addresses of a name, with the error of an address as its cause.
            refused = isinstance(error, ConnectionRefusedError) or isinstance(error.__cause__, ConnectionRefusedError)
            return CalloutFailed("connection refused" if refused else describe(error))

    def _pool(self, callout: PluginCallout, effect: ServerCall) -> AsyncPool:
        pool = self._pools.get(effect.server)
        if pool is None:
            server = callout.plugin.servers[effect.server]
            pool = self._pools[effect.server] = AsyncPool(server.socket, server.protocol)
        return pool

    async def _request(self, effect: HttpRequest) -> HttpReply:
        client = self._http.get(effect.verify)
        if client is None:
            client = httpx2.AsyncClient(verify=effect.verify, timeout=None, trust_env=False)
            self._http[effect.verify] = client
        with anyio.fail_after(effect.timeout):
            async with client.stream(
                effect.method, effect.url, headers=effect.headers, content=effect.body or None
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MOST:
                        raise ConnectionError("the answer is too large")
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        return HttpReply(response.status_code, headers, bytes(body))

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._http.values():
            await client.aclose()
        for asked in self._pools.values():
            asked.pool.close()


class PluginClient(InLoop[PluginCallout, Answer]):
    """Performs effects for the threads of a driver."""

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(AsyncPluginClient(clusters))


def _ask(effect: ServerCall) -> Ask:
    assert isinstance(effect.message, Ask)  # noqa: S101 - made by `ServerPlugin`
    return effect.message


async def _connect(effect: Connect) -> ByteStream | ConnectedUDPSocket:
    if effect.datagrams:
        return await anyio.create_connected_udp_socket(effect.host, effect.port)
    if not effect.port:
        return await anyio.connect_unix(effect.host)
    if not effect.tls:
        return await anyio.connect_tcp(effect.host, effect.port)
    context = ssl.create_default_context()
    if not effect.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await anyio.connect_tcp(
        effect.host,
        effect.port,
        tls=True,
        ssl_context=context,
        tls_hostname=effect.server_name or effect.host,
        tls_standard_compatible=False,
    )


async def _on_connection(effect: Any) -> Any:
    connection: Any = effect.connection
    if isinstance(effect, Close):
        await connection.aclose()
        return None
    with anyio.fail_after(effect.timeout):
        if isinstance(effect, Send):
            await connection.send(effect.data)
            return None
        assert isinstance(effect, Receive)  # noqa: S101 - the last kind of effect
        if isinstance(connection, ConnectedUDPSocket):
            return (await connection.receive())[: effect.size]
        try:
            return await connection.receive(effect.size)
        except anyio.EndOfStream:
            return b""


clients.MODULES[PluginCallout] = ("proxywasm_host.kong.client", "PluginClient")

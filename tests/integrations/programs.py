"""One program that makes requests with each client library, its filters between it and upstream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import aiohttp
import anyio
import httpx
import httpx2
import requests
import urllib3

from proxywasm_host.integrations import httpx as of_httpx
from proxywasm_host.integrations import httpx2 as of_httpx2
from proxywasm_host.integrations import requests as of_requests
from proxywasm_host.integrations import urllib3 as of_urllib3
from proxywasm_host.integrations.aiohttp import client as of_aiohttp
from tests.integrations.middlewares import Answer

CLIENTS = ["httpx2", "httpx2 async", "httpx", "httpx async", "requests", "urllib3", "aiohttp"]
LIBRARIES = {"httpx2": (httpx2, of_httpx2), "httpx": (httpx, of_httpx)}
CUT = (
    httpx2.RemoteProtocolError,
    httpx.RemoteProtocolError,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.ProtocolError,
    aiohttp.ClientPayloadError,
)
REFUSED = (
    httpx2.ConnectError,
    httpx.ConnectError,
    requests.exceptions.ConnectionError,
    urllib3.exceptions.MaxRetryError,
    aiohttp.ClientConnectorError,
)


class Program:
    """Sends each request with a client of its own, behind these filters."""

    def __init__(self, kind: str, filters: list, **options: Any) -> None:
        self.kind = kind
        self.filters = filters
        self.options = options

    def send(
        self, method: str, url: str, headers: Iterable = (), body: Any = None, stop_after: int | None = None
    ) -> Answer:
        """A request, and what the program gets; of a body, `stop_after` so many bytes."""
        given = (method, url, list(headers), body, stop_after)
        if self.kind == "requests":
            return self._requests(*given)
        if self.kind == "urllib3":
            return self._urllib3(*given)
        if self.kind == "aiohttp":
            return anyio.run(self._aiohttp, *given)
        return anyio.run(self._async, *given) if "async" in self.kind else self._sync(*given)

    def _requests(self, method, url, headers, body, stop_after) -> Answer:
        adapter = of_requests.ProxyWasmAdapter(requests.adapters.HTTPAdapter(), self.filters, **self.options)
        with requests.Session() as session:
            session.mount("http://", adapter)
            with session.request(
                method, url, headers=dict(headers), data=body, stream=True, allow_redirects=False
            ) as response:
                return Answer(
                    response.status_code,
                    list(response.headers.lower_items()),
                    taken(response.iter_content(100), stop_after),
                )

    def _urllib3(self, method, url, headers, body, stop_after) -> Answer:
        manager = of_urllib3.ProxyWasmPoolManager(urllib3.PoolManager(retries=0), self.filters, **self.options)
        given = {"headers": dict(headers), "body": body, "redirect": False, "preload_content": False}
        with manager, manager.request(method, url, **given) as response:
            got = taken(response.stream(100), stop_after)
        return Answer(response.status, [(name.lower(), value) for name, value in response.headers.items()], got)

    def _sync(self, method, url, headers, body, stop_after) -> Answer:
        library, ours = LIBRARIES[self.kind]
        transport = ours.ProxyWasmTransport(library.HTTPTransport(), self.filters, **self.options)
        with (
            library.Client(transport=transport) as client,
            client.stream(method, url, headers=headers, content=body) as response,
        ):
            return Answer(
                response.status_code, response.headers.multi_items(), taken(response.iter_bytes(100), stop_after)
            )

    async def _aiohttp(self, method, url, headers, body, stop_after) -> Answer:
        filters = of_aiohttp.ProxyWasmClientMiddleware(self.filters, **self.options)
        content = body if isinstance(body, (bytes, type(None))) else in_event_loop(body)
        got = b""
        given = {"headers": headers, "data": content, "allow_redirects": False}
        session = aiohttp.ClientSession(middlewares=[filters])
        async with session, session.request(method, url, **given) as response:
            async for part in response.content.iter_chunked(100):
                got += part
                if stop_after is not None and len(got) >= stop_after:
                    break
        await filters.aclose()
        return Answer(response.status, [(name.lower(), value) for name, value in response.headers.items()], got)

    async def _async(self, method, url, headers, body, stop_after) -> Answer:
        library, ours = LIBRARIES[self.kind.split()[0]]
        transport = ours.AsyncProxyWasmTransport(library.AsyncHTTPTransport(), self.filters, **self.options)
        content = body if isinstance(body, (bytes, type(None))) else in_event_loop(body)
        client = library.AsyncClient(transport=transport)
        async with client, client.stream(method, url, headers=headers, content=content) as response:
            got = b""
            async for part in response.aiter_bytes(100):
                got += part
                if stop_after is not None and len(got) >= stop_after:
                    break
            return Answer(response.status_code, response.headers.multi_items(), got)


def taken(parts: Iterable[bytes], stop_after: int | None) -> bytes:
    got = b""
    for part in parts:
        got += part
        if stop_after is not None and len(got) >= stop_after:
            break
    return got


async def in_event_loop(parts: Iterable[bytes]):
    for part in parts:
        yield part

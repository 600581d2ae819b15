"""Filters on the calls that a program makes with httpx.

    client = httpx.Client(transport=ProxyWasmTransport(httpx.HTTPTransport(), ["auth.wasm"]))

In an event loop: `AsyncProxyWasmTransport` around an ``httpx.AsyncHTTPTransport()``.
"""

from __future__ import annotations

from proxywasm_host import remedy

try:
    import httpx

    from proxywasm_host.integrations.httpx_transports import AsyncTransport, Transport
except ModuleNotFoundError as error:
    raise remedy.missing("httpx", error) from None

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter

__all__ = ["AsyncProxyWasmTransport", "Cluster", "Clusters", "Filter", "ProxyWasmTransport"]


class ProxyWasmTransport(Transport, httpx.BaseTransport, library=httpx):
    """A transport that passes requests and responses through filters.

    Args: the transport that sends, then those of `Carrier`. `properties` may be a function of the request; `clients`
        are those of `ThreadDriver`.

    Filters load with the first request. Raises: the errors of the transport, and httpx.RemoteProtocolError for a
    response that filters break off.
    """


class AsyncProxyWasmTransport(AsyncTransport, httpx.AsyncBaseTransport, library=httpx):
    """The same in an event loop; each event loop has its own filters. `clients` are those of `AsyncDriver`."""

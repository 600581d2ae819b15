"""Filters on the calls that a program makes with httpx2.

    client = httpx2.Client(transport=ProxyWasmTransport(httpx2.HTTPTransport(), ["auth.wasm"]))

In an event loop: `AsyncProxyWasmTransport` around an ``httpx2.AsyncHTTPTransport()``.
"""

from __future__ import annotations

from proxywasm_host import remedy

try:
    import httpx2

    from proxywasm_host.integrations.httpx_transports import AsyncTransport, Transport
except ModuleNotFoundError as error:
    raise remedy.missing("http", error) from None

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter

__all__ = ["AsyncProxyWasmTransport", "Cluster", "Clusters", "Filter", "ProxyWasmTransport"]


class ProxyWasmTransport(Transport, httpx2.BaseTransport, library=httpx2):
    """A transport that passes requests and responses through filters.

    Args: the transport that sends, then those of `Carrier`. `properties` may be a function of the request; `clients`
        are those of `ThreadDriver`.

    Filters load with the first request. Raises: the errors of the transport, and httpx2.RemoteProtocolError for a
    response that filters break off.
    """


class AsyncProxyWasmTransport(AsyncTransport, httpx2.AsyncBaseTransport, library=httpx2):
    """The same in an event loop; each event loop has its own filters. `clients` are those of `AsyncDriver`."""

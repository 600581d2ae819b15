"""Filters in front of the handlers of an aiohttp application.

    app = web.Application(middlewares=[ProxyWasmMiddleware(["auth.wasm"])])

A handler gets a new request, and reads its body through the filters. Its response passes the filters too, whether the
handler sends it whole, part by part, or from a file. A WebSocket passes the filters until it opens.
"""

from proxywasm_host import remedy
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter

try:
    from proxywasm_host.integrations.aiohttp.middleware import ProxyWasmMiddleware
    from proxywasm_host.integrations.asynchronous import ResponseOver
    from proxywasm_host.integrations.exchange import StreamReset
except ModuleNotFoundError as error:
    raise remedy.missing("aiohttp", error) from None

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmMiddleware", "ResponseOver", "StreamReset"]

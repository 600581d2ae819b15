"""Filters in front of an ASGI application: ``ProxyWasmMiddleware(app, ["auth.wasm"])``."""

from proxywasm_host import remedy
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter

try:
    from proxywasm_host.integrations.asgi.middleware import ProxyWasmMiddleware
    from proxywasm_host.integrations.asynchronous import ResponseOver
    from proxywasm_host.integrations.exchange import StreamReset
except ModuleNotFoundError as error:
    raise remedy.missing("asgi", error) from None

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmMiddleware", "ResponseOver", "StreamReset"]

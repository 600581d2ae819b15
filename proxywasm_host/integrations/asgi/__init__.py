"""Filters in front of an ASGI application: ``ProxyWasmMiddleware(app, ["auth.wasm"])``."""

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.integrations.asgi.middleware import ProxyWasmMiddleware

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmMiddleware"]

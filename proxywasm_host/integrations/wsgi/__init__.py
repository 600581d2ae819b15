"""Filters in front of a WSGI application: ``ProxyWasmMiddleware(app, ["auth.wasm"])``."""

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.integrations.exchange import StreamReset
from proxywasm_host.integrations.wsgi.middleware import ProxyWasmMiddleware
from proxywasm_host.integrations.wsgi.pump import RequestCut

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmMiddleware", "RequestCut", "StreamReset"]

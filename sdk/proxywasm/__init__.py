"""Proxy-Wasm filters in Python.

A filter is a class, or plain functions; `proxywasm pack` turns the script into a WebAssembly module, which runs in
Envoy and in every other host of Proxy-Wasm 0.2.1. The same script runs under CPython in unit tests
(`proxywasm.testing`). ::

    from proxywasm import HttpFilter, Response, register

    class Token(HttpFilter):
        def on_request_headers(self, request):
            if request.headers.get("authorization") != self.config["token"]:
                return Response(401, body="no token\\n")
            request.headers["x-user"] = "alice"

    register(Token)
"""

from proxywasm._callbacks import register
from proxywasm._filters import HttpFilter, TcpFilter
from proxywasm._functions import (
    on_configure,
    on_log,
    on_request_body,
    on_request_headers,
    on_request_trailers,
    on_response_body,
    on_response_headers,
    on_response_trailers,
)
from proxywasm._grpc import GrpcReply, GrpcStream, grpc, grpc_stream
from proxywasm._host import HostError, clear_route_cache, foreign, get_property, property_bytes, set_property, vm_config
from proxywasm._log import log
from proxywasm._messages import Headers, Request, RequestHead, Response, ResponseHead
from proxywasm._shared import Queue, counter, gauge, histogram, shared
from proxywasm._tasks import Reply, call, create_task, every, gather, sleep

__all__ = [
    "GrpcReply",
    "GrpcStream",
    "Headers",
    "HostError",
    "HttpFilter",
    "Queue",
    "Reply",
    "Request",
    "RequestHead",
    "Response",
    "ResponseHead",
    "TcpFilter",
    "call",
    "clear_route_cache",
    "counter",
    "create_task",
    "every",
    "foreign",
    "gather",
    "gauge",
    "get_property",
    "grpc",
    "grpc_stream",
    "histogram",
    "log",
    "on_configure",
    "on_log",
    "on_request_body",
    "on_request_headers",
    "on_request_trailers",
    "on_response_body",
    "on_response_headers",
    "on_response_trailers",
    "property_bytes",
    "register",
    "set_property",
    "shared",
    "sleep",
    "vm_config",
]

"""Callouts over HTTP, gRPC and Redis. ``[2]`` is a refusal with status 2."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls.callouts import (
    proxy_grpc_call,
    proxy_grpc_cancel,
    proxy_grpc_close,
    proxy_grpc_send,
    proxy_grpc_stream,
    proxy_http_call,
    proxy_redis_call,
    proxy_redis_init,
)
from proxywasm_host.abi.marshal import Refusal
from tests.abi.fakes import FakeVm, answer

HEADERS = [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"h")]
TRAILERS = [(b"t", b"1")]


def http(cluster=b"upstream", headers=HEADERS, timeout=1000):
    return proxy_http_call, cluster, headers, b"body", TRAILERS, timeout


STARTED = [
    # call → what the root context was told
    (http(), ("http", "upstream", HEADERS, b"body", TRAILERS, 1000)),
    (http(timeout=0), ("http", "upstream", HEADERS, b"body", TRAILERS, 0)),
    (
        http(headers=[(b":METHOD", b"GET"), (b":Path", b"/"), (b":authority", b"H"), (b"X-Y", b"Z")]),
        ("http", "upstream", [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"H"), (b"x-y", b"Z")], b"body",
         TRAILERS, 1000),
    ),
    (
        (proxy_grpc_call, b"upstream", b"service", b"method", TRAILERS, b"message", 5),
        ("grpc call", b"upstream", b"service", b"method", TRAILERS, b"message", 5),
    ),
    (
        (proxy_grpc_stream, b"\xff", b"service", b"method", TRAILERS),
        ("grpc stream", b"\xff", b"service", b"method", TRAILERS),
    ),
    ((proxy_grpc_send, 6, b"message", 0), ("grpc send", 6, b"message", False)),
    ((proxy_grpc_send, 6, b"", 7), ("grpc send", 6, b"", True)),
    ((proxy_grpc_close, 6), ("grpc close", 6)),
    ((proxy_grpc_cancel, 6), ("grpc cancel", 6)),
    ((proxy_redis_init, b"upstream", b"me", b"secret", 5), ("redis init", "upstream", b"me", b"secret", 5, {})),
    (
        (proxy_redis_init, b"upstream?db=2&max_buffer_size_before_flush=1024", b"", b"", 5),
        ("redis init", "upstream", b"", b"", 5, {"db": "2", "max_buffer_size_before_flush": "1024"}),
    ),
    (
        (proxy_redis_init, b"upstream?" + b"&".join([b"a=1"] * 64), b"", b"", 5),
        ("redis init", "upstream", b"", b"", 5, {"a": "1"}),
    ),
    ((proxy_redis_init, b"upstream?", b"", b"", 5), ("redis init", "upstream", b"", b"", 5, {})),
    ((proxy_redis_init, b"upstream?\xff&&=%ff", b"", b"", 5), ("redis init", "upstream", b"", b"", 5, {"": "%ff"})),
    ((proxy_redis_call, b"upstream", b"*1"), ("redis", "upstream", b"*1")),
    ((proxy_redis_call, b"upstream?db=2", b"*1"), ("redis", "upstream", b"*1")),
]  # fmt: skip


@pytest.mark.parametrize(("call", "told"), STARTED, ids=lambda value: str(value[0])[:30])
@pytest.mark.parametrize("result", [7, Refusal(10, "not sent")], ids=["token", "refusal"])
def test_callouts_are_the_root_contexts(call, told, result):
    vm = FakeVm()
    vm.root.answer = result
    hostcall, *args = call
    assert hostcall(vm, *args) is result
    assert (vm.root.started, vm.stream.started) == ([told], [])


REFUSED = {
    # call → status and reason
    "unknown cluster": (http(b"other"), 2, "no cluster is called 'other': add it to clusters"),
    "no cluster": (http(b""), 2, "no cluster is called '': add it to clusters"),
    "a cluster that is not UTF-8": (http(b"\xff"), 2, "no cluster is called '\\udcff': add it to clusters"),
    "negative time": (http(timeout=-1), 2, "the timeout is -1 ms"),
    "no path": (http(headers=[HEADERS[0], HEADERS[2]]), 2, "the call's headers have no :path"),
    "no headers": (http(headers=[]), 2, "the call's headers have no :method, :path, :authority"),
    "Redis of an unknown cluster": (
        (proxy_redis_init, b"other?db=1", b"", b"", 5),
        2,
        "no cluster is called 'other': add it to clusters",
    ),
    "Redis with very many options": (
        (proxy_redis_init, b"upstream?" + b"&".join([b"a=1"] * 65), b"", b"", 5),
        2,
        "more than 64 options after cluster 'upstream'",
    ),
    "a command to it": ((proxy_redis_call, b"other", b"*1"), 2, "no cluster is called 'other': add it to clusters"),
}


@pytest.mark.parametrize(("call", "status", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(call, status, reason):
    vm = FakeVm()
    hostcall, *args = call
    refusal = hostcall(vm, *args)
    assert (answer(refusal), refusal.reason) == ([status], reason)
    assert vm.root.started == []


def test_the_guests_own_list_of_headers_is_left_alone():
    headers = [(b":METHOD", b"GET"), *HEADERS[1:]]
    proxy_http_call(FakeVm(), b"upstream", headers, b"", [], 0)
    assert headers[0] == (b":METHOD", b"GET")

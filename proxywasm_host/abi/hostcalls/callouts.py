"""Callouts: requests of a filter over HTTP, gRPC or Redis. They belong to the root context."""

from __future__ import annotations

import re

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.hostcalls.headers import canonical
from proxywasm_host.abi.marshal import Refusal, misuse
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import MapType, Status

ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{1,45}\])(?::(?P<port>[0-9]{1,5}))?")
REQUIRED = (b":method", b":path", b":authority")
REQUEST_HEADERS = int(MapType.REQUEST_HEADERS)
NO_CLUSTER = "no cluster is called {0!r}: add it to clusters"
MAX_OPTIONS = 64
"""Most options after the name of a Redis cluster."""


def text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def is_address(name: str) -> bool:
    """Whether a name is a host, with or without a port."""
    found = ADDRESS.fullmatch(name)
    return found is not None and int(found["port"] or 1) in range(1, 1 << 16)


def proxy_http_call(
    vm: VmState, cluster: bytes, headers: HeaderList, body: bytes, trailers: HeaderList, timeout: int
) -> int | Refusal:
    """Send an HTTP request; ``on_http_call_response`` gets the reply. Returns its token.

    `timeout` is in milliseconds; 0 means none. A negative `timeout`, an unknown cluster, and headers without
    ``:method``, ``:path`` or ``:authority`` are BAD_ARGUMENT (``httpCall`` in ``context.cc``).
    """
    if timeout < 0:
        return Refusal(Status.BAD_ARGUMENT, "the timeout is {0} ms", timeout)
    name = text(cluster)
    if name not in vm.services.clusters:
        if vm.profile.dispatch_status and not is_address(name):
            return misuse(vm, "dispatch failed: {0!r} is no address", name)
        return Refusal(Status.BAD_ARGUMENT, NO_CLUSTER, name)
    headers = [(canonical(REQUEST_HEADERS, key), value) for key, value in headers]
    given = dict(headers)
    missing = [key.decode() for key in REQUIRED if key not in given]
    if vm.profile.dispatch_status:
        needed = next((name for name in missing if name != ":authority"), None)
        if needed:
            return misuse(vm, "dispatch failed: no {0}", needed)
        if missing:
            headers.insert(0, (b":authority", cluster))
    elif missing:
        return Refusal(Status.BAD_ARGUMENT, "the call's headers have no {0}", ", ".join(missing))
    return vm.context.root.http_call(name, headers, body, trailers, timeout)


def proxy_grpc_call(
    vm: VmState,
    cluster: bytes,
    service: bytes,
    method: bytes,
    initial_metadata: HeaderList,
    message: bytes,
    timeout: int,
) -> int | Refusal:
    """Make a unary gRPC call; ``on_grpc_receive`` gets the reply, ``on_grpc_close`` an error. Returns its token.

    `cluster` is a cluster's name or a serialised ``GrpcService``; anything else is PARSE_FAILURE (``grpcCall`` in
    ``context.cc``). `timeout` is in milliseconds.
    """
    return vm.context.root.grpc_call(cluster, service, method, initial_metadata, message, timeout)


def proxy_grpc_stream(
    vm: VmState, cluster: bytes, service: bytes, method: bytes, initial_metadata: HeaderList
) -> int | Refusal:
    """Open a gRPC stream; `cluster` as for `proxy_grpc_call` (``grpcStream`` in ``context.cc``). Returns its token."""
    return vm.context.root.grpc_stream(cluster, service, method, initial_metadata)


def proxy_grpc_send(vm: VmState, token: int, message: bytes, end_stream: int) -> Refusal | None:
    """Send a message on a gRPC stream; `end_stream` closes the guest's side (``grpcSend`` in ``context.cc``)."""
    return vm.context.root.grpc_send(token, message, bool(end_stream))


def proxy_grpc_close(vm: VmState, token: int) -> Refusal | None:
    """Close the guest's side of a gRPC stream; replies still arrive. Cancels a unary call (``grpcClose``)."""
    return vm.context.root.grpc_close(token)


def proxy_grpc_cancel(vm: VmState, token: int) -> Refusal | None:
    """Cancel a gRPC call or stream; no callback for it follows (``grpcCancel`` in ``context.cc``)."""
    return vm.context.root.grpc_cancel(token)


def redis_cluster(vm: VmState, cluster: bytes) -> tuple[str, dict[str, str]] | Refusal:
    """Split Higress's ``redis?db=2&buffer_flush_timeout=3`` into the cluster's name and its options."""
    name, _, options = text(cluster).partition("?")
    if name not in vm.services.clusters:
        return Refusal(Status.BAD_ARGUMENT, NO_CLUSTER, name)
    given = [option.split("=", 1) for option in options.split("&", MAX_OPTIONS) if "=" in option]
    if len(given) > MAX_OPTIONS:
        return Refusal(Status.BAD_ARGUMENT, "more than {0} options after cluster {1!r}", MAX_OPTIONS, name)
    return name, dict(given)


def proxy_redis_init(vm: VmState, cluster: bytes, username: bytes, password: bytes, timeout: int) -> Refusal | None:
    """Set login and timeout of a cluster's Redis client (Higress's fork of ``context.cc``).

    `timeout` is in milliseconds. The options belong to the cluster, so calls may name it with or without them.
    """
    found = redis_cluster(vm, cluster)
    if isinstance(found, Refusal):
        return found
    name, options = found
    return vm.context.root.redis_init(name, username, password, timeout, options)


def proxy_redis_call(vm: VmState, cluster: bytes, query: bytes) -> int | Refusal:
    """Send a Redis command, as RESP bytes (Higress's fork of ``context.cc``). Returns its token.

    ``on_redis_call_response`` gets the reply. An unknown cluster is BAD_ARGUMENT.
    """
    found = redis_cluster(vm, cluster)
    if isinstance(found, Refusal):
        return found
    return vm.context.root.redis_call(found[0], query)

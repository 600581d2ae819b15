"""Callouts: requests that a filter makes itself, over HTTP, gRPC or Redis. They belong to the root context."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.hostcalls.headers import canonical
from proxywasm_host.abi.hostcalls.quota import within_quota
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import MapType, Status

REQUIRED = (b":method", b":path", b":authority")
NO_CLUSTER = "no cluster is called {0!r}: add it to clusters"
MAX_OPTIONS = 64
"""Options behind the name of a Redis cluster."""


def text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


@within_quota
def proxy_http_call(
    vm: VmState, cluster: bytes, headers: HeaderList, body: bytes, trailers: HeaderList, timeout: int
) -> int | Refusal:
    """`timeout` is in milliseconds; with 0 there is no time-out."""
    if timeout < 0:
        return Refusal(Status.BAD_ARGUMENT, "a time-out of {0} ms", timeout)
    name = text(cluster)
    if name not in vm.services.clusters:
        return Refusal(Status.BAD_ARGUMENT, NO_CLUSTER, name)
    headers = [(canonical(MapType.REQUEST_HEADERS, key), value) for key, value in headers]
    given = dict(headers)
    missing = [key.decode() for key in REQUIRED if key not in given]
    if missing:
        return Refusal(Status.BAD_ARGUMENT, "the call's headers have no {0}", ", ".join(missing))
    return vm.context.root.http_call(name, headers, body, trailers, timeout)


@within_quota
def proxy_grpc_call(
    vm: VmState,
    cluster: bytes,
    service: bytes,
    method: bytes,
    initial_metadata: HeaderList,
    message: bytes,
    timeout: int,
) -> int | Refusal:
    return vm.context.root.grpc_call(cluster, service, method, initial_metadata, message, timeout)


@within_quota
def proxy_grpc_stream(
    vm: VmState, cluster: bytes, service: bytes, method: bytes, initial_metadata: HeaderList
) -> int | Refusal:
    return vm.context.root.grpc_stream(cluster, service, method, initial_metadata)


@within_quota
def proxy_grpc_send(vm: VmState, token: int, message: bytes, end_stream: int) -> Refusal | None:
    return vm.context.root.grpc_send(token, message, bool(end_stream))


@within_quota
def proxy_grpc_close(vm: VmState, token: int) -> Refusal | None:
    return vm.context.root.grpc_close(token)


@within_quota
def proxy_grpc_cancel(vm: VmState, token: int) -> Refusal | None:
    return vm.context.root.grpc_cancel(token)


def redis_cluster(vm: VmState, cluster: bytes) -> tuple[str, dict[str, str]] | Refusal:
    """A cluster and the options behind its name: ``redis?db=2&buffer_flush_timeout=3``."""
    name, _, options = text(cluster).partition("?")
    if name not in vm.services.clusters:
        return Refusal(Status.BAD_ARGUMENT, NO_CLUSTER, name)
    given = [option.split("=", 1) for option in options.split("&", MAX_OPTIONS) if "=" in option]
    if len(given) > MAX_OPTIONS:
        return Refusal(Status.BAD_ARGUMENT, "more than {0} options behind cluster {1!r}", MAX_OPTIONS, name)
    return name, dict(given)


@within_quota
def proxy_redis_init(vm: VmState, cluster: bytes, username: bytes, password: bytes, timeout: int) -> Refusal | None:
    """Higress. `timeout` is in milliseconds. Options belong to the cluster: calls name it with or without them."""
    found = redis_cluster(vm, cluster)
    if isinstance(found, Refusal):
        return found
    name, options = found
    return vm.context.root.redis_init(name, username, password, timeout, options)


@within_quota
def proxy_redis_call(vm: VmState, cluster: bytes, query: bytes) -> int | Refusal:
    """Higress. `query` is a command as RESP bytes."""
    found = redis_cluster(vm, cluster)
    if isinstance(found, Refusal):
        return found
    return vm.context.root.redis_call(found[0], query)

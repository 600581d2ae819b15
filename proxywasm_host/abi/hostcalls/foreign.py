"""Foreign functions and Higress's extensions of the ABI."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from itertools import islice

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.hostcalls.callouts import NO_CLUSTER, text
from proxywasm_host.abi.hostcalls.expressions import expr_create, expr_delete, expr_evaluate
from proxywasm_host.abi.marshal import Refusal, misuse
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import Status
from proxywasm_host.protobuf import fields
from proxywasm_host.services import ForeignCallFailed

MAX_DIGITS = 18
HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
MAX_FIELDS = 64
"""Most fields of a message that are read. Two are used, but others may precede them."""


def _clear_route_cache(vm: VmState, arguments: bytes) -> bytes:
    """Envoy's: make the proxy choose the route again (``foreign.cc``)."""
    vm.context.clear_route_cache()
    return b""


def _log_level(vm: VmState, arguments: bytes) -> bytes:
    """Higress's: the log level, as 4 bytes, little-endian."""
    return vm.services.log.level.to_bytes(4, "little")


def _max_requests(vm: VmState, arguments: bytes) -> bytes:
    """Higress's: how many requests its event loop handles at once. No effect here: the embedder feeds requests."""
    return b""


def _inject_on_headers(vm: VmState, arguments: bytes) -> bytes | Refusal:
    """Higress's: pass body data to the next filter from a callback on headers.

    Fields: 1 the data, 2 whether they end the stream.
    """
    try:
        found = dict(islice(fields(arguments), MAX_FIELDS))
    except (ValueError, IndexError):
        return Refusal(Status.PARSE_FAILURE, "the argument is not a protobuf message")
    body = found.get(1, b"")
    if not isinstance(body, bytes):
        return Refusal(Status.PARSE_FAILURE, "the body (field 1) is a number")
    return vm.context.inject_response_body(body, bool(found.get(2))) or b""


def _declare_property(vm: VmState, arguments: bytes) -> bytes | Refusal:
    """Envoy's: declare a property before it is set (``foreign.cc``).

    Fields: 1 the name, 2 whether it can be set only once. Type (3), schema (4) and span (5) have no meaning here.
    """
    found = _message(arguments)
    if isinstance(found, Refusal):
        return found
    name = found.get(1, b"")
    if not isinstance(name, bytes):
        return Refusal(Status.BAD_ARGUMENT, "the name (field 1) is a number")
    refusal = vm.context.declare_property(name.decode("utf-8", "surrogateescape"), read_only=bool(found.get(2)))
    return refusal or b""


def _set_filter_state(vm: VmState, arguments: bytes) -> bytes | Refusal:
    """Envoy's: set an object of its filter state (``foreign.cc``).

    Fields: 1 its name, 2 its value. The span (3) has no meaning here.
    """
    found = _message(arguments)
    if isinstance(found, Refusal):
        return found
    name, value = (_text(found.get(number, b"")) for number in (1, 2))
    right = FILTER_STATE.get(name)
    if right is None:
        return Refusal(Status.NOT_FOUND, "no object of Envoy's filter state is called {0!r}", name)
    if not right(value):
        return Refusal(Status.BAD_ARGUMENT, "{0} cannot be {1!r}", name, value)
    return vm.context.set_filter_state(name, value.encode("utf-8", "surrogateescape")) or b""


def _text(value: int | bytes) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else ""


def _resolve(vm: VmState, arguments: bytes) -> bytes | Refusal:
    """ngx_wasm_module's ``resolve_lua``: the address of a host as 4 or 16 bytes (``ngx_proxy_wasm_foreign_call.c``).

    If the name must be looked up, the answer is empty, and ``on_foreign_function`` of the calling context gets the
    address later. A filter may resolve only the hosts that it may call.
    """
    if not arguments:
        return misuse(vm, "cannot resolve, missing name")
    name = text(arguments)
    try:
        return ip_address(name.removeprefix("[").removesuffix("]")).packed
    except ValueError:
        pass
    if not HOST.fullmatch(name):
        return misuse(vm, "failed resolving name: {0!r} is not the name of a host", name)
    if name not in vm.services.clusters:
        return Refusal(Status.BAD_ARGUMENT, NO_CLUSTER, name)
    return vm.context.root.look_up(name) or b""


def _message(arguments: bytes) -> dict[int, int | bytes] | Refusal:
    """The first fields of a protobuf message, by number; of several with one number the last counts."""
    try:
        return dict(islice(fields(arguments), MAX_FIELDS))
    except (ValueError, IndexError):
        return Refusal(Status.BAD_ARGUMENT, "the argument is not a protobuf message")


def _any(value: str) -> bool:
    return True


def _number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < MAX_DIGITS


def _port(value: str) -> bool:
    return _number(value) and 0 < int(value) < 1 << 16


def _ip(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _address(value: str) -> bool:
    host, _, port = value.rpartition(":")
    return _port(port) and _ip(host.removeprefix("[").removesuffix("]"))


FILTER_STATE: dict[str, Callable[[str], bool]] = {
    "envoy.filters.listener.original_dst.local_ip": _address,
    "envoy.filters.listener.original_dst.remote_ip": _address,
    "envoy.hashable_string": _any,
    "envoy.network.application_protocols": _any,
    "envoy.network.ip": _ip,
    "envoy.network.network_namespace": _any,
    "envoy.network.transport_socket.original_dst_address": _address,
    "envoy.network.upstream_server_name": _any,
    "envoy.network.upstream_subject_alt_names": _any,
    "envoy.ratelimit.hits_addend": _number,
    "envoy.string": _any,
    "envoy.tcp_proxy.cluster": _any,
    "envoy.tcp_proxy.disable_tunneling": _any,
    "envoy.tcp_proxy.per_connection_idle_timeout_ms": _number,
    "envoy.upstream.dynamic_host": _any,
    "envoy.upstream.dynamic_port": _port,
}
"""Objects of filter state that Envoy 1.40 makes from text, each with a check of the text. Here they are kept for the
embedder (`HttpStream.filter_state`), which may act on them as Envoy does.
"""


OF_HOST: dict[str, Callable[[VmState, bytes], bytes | Refusal]] = {
    "clear_route_cache": _clear_route_cache,
    "declare_property": _declare_property,
    "expr_create": expr_create,
    "expr_delete": expr_delete,
    "expr_evaluate": expr_evaluate,
    "get_log_level": _log_level,
    "inject_encoded_data_to_filter_chain_on_header": _inject_on_headers,
    "set_envoy_filter_state": _set_filter_state,
    "set_global_max_requests_per_io_cycle": _max_requests,
}
"""Envoy's and Higress's functions, which act on the context or query the host."""

OF_WASMX: dict[str, Callable[[VmState, bytes], bytes | Refusal]] = {"resolve_lua": _resolve}
"""ngx_wasm_module's functions, for a profile with `resolves_names`."""

OF_OTHER_HOSTS: dict[str, str] = {
    **dict.fromkeys(
        (
            "stats_filter_emit",
            "stats_filter_get_all_metric_tags",
            "stats_filter_get_histograms",
            "stats_filter_get_metric_tags",
            "stats_filter_inject_metrics",
            "stats_filter_set_global_tags",
            "stats_filter_set_name_overrides",
        ),
        "Envoy's sink for statistics",
    ),
    "resolve_lua": "ngx_wasm_module: the profile wasmx has it",
}
PREFIXES_OF_OTHER_HOSTS: dict[str, str] = {"flex_": "MuleSoft's gateway", "bareproxy_": "BareProxy"}
"""Other hosts' foreign functions, by the beginning of their names. Here an embedder must register them."""


def proxy_call_foreign_function(vm: VmState, name: bytes, arguments: bytes) -> bytes | Refusal:
    """Call a function by name: one of the host (`OF_HOST`), or one of ``Services.foreign_functions``.

    NOT_FOUND for an unknown name (``call_foreign_function`` in ``exports.cc``). If an embedder's function raises, the
    guest gets INTERNAL_FAILURE and continues.
    """
    function = name.decode("utf-8", "replace")
    ours = OF_HOST.get(function) or (OF_WASMX.get(function) if vm.profile.resolves_names else None)
    if ours is not None:
        return ours(vm, arguments)
    found = vm.services.foreign_functions.get(function)
    if found is None:
        return Refusal(Status.NOT_FOUND, "this host has no foreign function {0!r}", function)
    try:
        result = found(arguments)
    except ForeignCallFailed as error:
        return Refusal(error.status, str(error))
    except Exception as error:  # noqa: BLE001 - an embedder's function must not end the guest
        return Refusal(Status.INTERNAL_FAILURE, "foreign function {0!r} raised {1!r}", function, error)
    if not isinstance(result, bytes):
        kind = type(result).__name__
        return Refusal(Status.INTERNAL_FAILURE, "foreign function {0!r} returned {1}, not bytes", function, kind)
    return result


def proxy_inject_encoded_data_to_filter_chain(vm: VmState, data: bytes, end_stream: int) -> Refusal | None:
    """Pass response body data to the filters after this one; `end_stream` ends the body (Higress's ``exports.cc``)."""
    return vm.context.inject_response_body(data, bool(end_stream))


def proxy_get_upstream_hosts(vm: VmState) -> HeaderList:
    """The servers of the request's upstream, as pairs of address and state in JSON (Higress's ``exports.cc``)."""
    return [(address.encode(), text.encode()) for address, text in vm.services.upstream_hosts().items()]


def proxy_set_upstream_override_host(vm: VmState, address: bytes) -> Refusal | None:
    """Send this request to one server of the upstream, by its address (Higress's ``exports.cc``)."""
    return vm.context.override_upstream_host(address)

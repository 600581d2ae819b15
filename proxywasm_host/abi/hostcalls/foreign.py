"""Foreign functions and Higress's extensions of the ABI."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.hostcalls.quota import within_quota
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import Status
from proxywasm_host.protobuf import fields
from proxywasm_host.services import ForeignCallFailed

MOST_FIELDS = 64
"""Fields of a message that are looked at: it has two, but others may be among them."""


def _clear_route_cache(vm: VmState, arguments: bytes) -> bytes:
    vm.context.clear_route_cache()
    return b""


def _log_level(vm: VmState, arguments: bytes) -> bytes:
    return vm.services.log.level.to_bytes(4, "little")


def _max_requests(vm: VmState, arguments: bytes) -> bytes:
    """How many requests Higress's event loop may take at once. Here the embedder feeds them, so nothing is bounded."""
    return b""


def _inject_on_headers(vm: VmState, arguments: bytes) -> bytes | Refusal:
    """The argument is a protobuf message: field 1 is the body, field 2 whether it ends the stream."""
    try:
        found = dict(islice(fields(arguments), MOST_FIELDS))
    except (ValueError, IndexError):
        return Refusal(Status.PARSE_FAILURE, "the argument is no protobuf message")
    body = found.get(1, b"")
    if not isinstance(body, bytes):
        return Refusal(Status.PARSE_FAILURE, "the body (field 1) is a number")
    return vm.context.inject_response_body(body, bool(found.get(2))) or b""


OF_HOST: dict[str, Callable[[VmState, bytes], bytes | Refusal]] = {
    "clear_route_cache": _clear_route_cache,
    "get_log_level": _log_level,
    "inject_encoded_data_to_filter_chain_on_header": _inject_on_headers,
    "set_global_max_requests_per_io_cycle": _max_requests,
}
"""Functions that act on the context or ask the host; all but the first are Higress's."""


@within_quota
def proxy_call_foreign_function(vm: VmState, name: bytes, arguments: bytes) -> bytes | Refusal:
    function = name.decode("utf-8", "replace")
    ours = OF_HOST.get(function)
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


@within_quota
def proxy_inject_encoded_data_to_filter_chain(vm: VmState, data: bytes, end_stream: int) -> Refusal | None:
    return vm.context.inject_response_body(data, bool(end_stream))


def proxy_get_upstream_hosts(vm: VmState) -> HeaderList:
    return [(address.encode(), text.encode()) for address, text in vm.services.upstream_hosts().items()]


@within_quota
def proxy_set_upstream_override_host(vm: VmState, address: bytes) -> Refusal | None:
    return vm.context.override_upstream_host(address)

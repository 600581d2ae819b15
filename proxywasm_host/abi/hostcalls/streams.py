"""Local responses, resuming and closing streams; the effective context."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import Status, StreamType

LAST_GRPC_STATUS = 16
LAST_STATUS = 999


def proxy_send_local_response(
    vm: VmState, status: int, details: bytes, body: bytes, headers: HeaderList, grpc_status: int
) -> Refusal | None:
    """Answer the client instead of continuing. Always OK (``sendLocalResponse`` in ``context.cc``).

    The response is sent after the guest returns. A gRPC status outside of 0 to 16 means none: SDKs send -1.
    """
    if vm.profile.local_response_line:
        if not 100 <= status <= LAST_STATUS:
            return Refusal(Status.BAD_ARGUMENT, "{0} is not a status, which is from 100 to 999", status)
        body = body + b"\n" if body else body
    vm.context.send_local_response(
        status, details, body, headers, grpc_status if 0 <= grpc_status <= LAST_GRPC_STATUS else None
    )
    return None


def proxy_continue_stream(vm: VmState, stream: int) -> Refusal | None:
    """Resume a direction of the stream after the guest returns (``continueStream`` in ``context.cc``)."""
    return vm.context.continue_stream(stream)


def proxy_close_stream(vm: VmState, stream: int) -> Refusal | None:
    """Reset an HTTP stream, or close a side of a TCP connection, after the guest returns.

    Source: ``closeStream`` in ``context.cc``.
    """
    return vm.context.close_stream(stream)


def proxy_continue_request(vm: VmState) -> Refusal | None:
    """ABI 0.1.0: `proxy_continue_stream` of the request."""
    return vm.context.continue_stream(StreamType.REQUEST)


def proxy_continue_response(vm: VmState) -> Refusal | None:
    """ABI 0.1.0: `proxy_continue_stream` of the response."""
    return vm.context.continue_stream(StreamType.RESPONSE)


def proxy_clear_route_cache(vm: VmState) -> Refusal | None:
    """ABI 0.1.0: make the proxy choose the route again. Later versions have a foreign function (``foreign.cc``)."""
    vm.context.clear_route_cache()
    return None


def proxy_set_effective_context(vm: VmState, context: int) -> Refusal | None:
    """Act for another context until the callback returns (``set_effective_context`` in ``exports.cc``).

    BAD_ARGUMENT for a context that has ended.
    """
    found = vm.contexts.get(context)
    if found is None:
        return Refusal(Status.BAD_ARGUMENT, "no context has the id {0}: it has ended, or never existed", context)
    vm.context = found
    return None


def proxy_done(vm: VmState) -> Refusal | None:
    """End the wait that ``on_done`` began by returning false. NOT_FOUND without one (``done`` in ``exports.cc``)."""
    return vm.context.done()

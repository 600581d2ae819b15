"""Foreign functions and Higress's extensions of the ABI."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import Status
from proxywasm_host.services import ForeignCallFailed


def proxy_call_foreign_function(vm: VmState, name: bytes, arguments: bytes) -> bytes | Refusal:
    function = name.decode("utf-8", "replace")
    if function == "clear_route_cache":
        vm.context.clear_route_cache()
        return b""
    found = vm.services.foreign_functions.get(function)
    if found is None:
        return Refusal(Status.NOT_FOUND, "this host has no foreign function {0!r}", function)
    try:
        return found(arguments)
    except ForeignCallFailed as error:
        return Refusal(error.status, str(error))
    except Exception as error:  # noqa: BLE001 - an embedder's function must not end the guest
        return Refusal(Status.INTERNAL_FAILURE, "foreign function {0!r} raised {1!r}", function, error)


def proxy_inject_encoded_data_to_filter_chain(vm: VmState, data: bytes, end_stream: int) -> Refusal | None:
    return vm.context.inject_response_body(data, bool(end_stream))


def proxy_get_upstream_hosts(vm: VmState) -> HeaderList:
    return [(address.encode(), text.encode()) for address, text in vm.services.upstream_hosts().items()]


def proxy_set_upstream_override_host(vm: VmState, address: bytes) -> Refusal | None:
    return vm.context.override_upstream_host(address)

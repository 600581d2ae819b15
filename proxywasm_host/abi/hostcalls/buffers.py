"""Buffers: bodies, TCP data, replies of callouts, configurations."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.held_body import HeldBody
from proxywasm_host.abi.marshal import Refusal, misuse
from proxywasm_host.abi.native import check_constants
from proxywasm_host.abi.types import BufferType, Status

OF_STREAM = frozenset(
    (
        BufferType.HTTP_REQUEST_BODY,
        BufferType.HTTP_RESPONSE_BODY,
        BufferType.DOWNSTREAM_DATA,
        BufferType.UPSTREAM_DATA,
        BufferType.GRPC_RECEIVE_BUFFER,
        BufferType.CALL_DATA,
    )
)
OF_ROOT = frozenset(
    (
        BufferType.HTTP_CALL_RESPONSE_BODY,
        BufferType.GRPC_RECEIVE_BUFFER,
        BufferType.PLUGIN_CONFIGURATION,
        BufferType.REDIS_CALL_RESPONSE,
    )
)
check_constants(VM_CONFIGURATION=BufferType.VM_CONFIGURATION, **{each.name: each for each in OF_ROOT})


def content(vm: VmState, buffer: int) -> bytes | HeldBody | Refusal:
    """The bytes of a buffer, or the reason why it cannot be read (``getBuffer`` in ``context.cc``).

    The VM's configuration can always be read. The plugin's configuration and the bodies of replies belong to the root
    context, everything else to the stream. They can be read only in their callbacks, or while the filter holds them.
    """
    found: bytes | HeldBody | None
    if buffer == BufferType.VM_CONFIGURATION:
        found = vm.vm_configuration
    elif buffer in OF_ROOT:
        found = vm.context.root.buffers[buffer]
    else:
        found = vm.context.buffers[buffer]
    if found is None:
        if buffer in OF_STREAM and vm.profile.absent_buffer_is_empty:  # getBuffer in context.cc returns an empty buffer
            return b""
        return Refusal(Status.NOT_FOUND, "there is no {0} in this callback", words(buffer))
    return found


def words(buffer: int) -> str:
    """Name of a buffer for messages."""
    return BufferType(buffer).name.lower().replace("_", " ")


def proxy_get_buffer_bytes(vm: VmState, buffer: int, start: int, length: int) -> bytes | Refusal:
    """Up to `length` bytes from `start` on; OK without bytes after the end (``copyTo`` in ``context.cc``)."""
    found = content(vm, buffer)
    if isinstance(found, Refusal):
        return found
    return found[start : start + length] if isinstance(found, bytes) else found.part(start, length)


def proxy_get_buffer_status(vm: VmState, buffer: int) -> tuple[int, int] | Refusal:
    """The size of a buffer in bytes, and its flags: always 0, because the ABI has none (as in Envoy's host)."""
    found = content(vm, buffer)
    if isinstance(found, Refusal):
        return found
    return len(found), 0


def proxy_set_buffer_bytes(vm: VmState, buffer: int, start: int, length: int, data: bytes) -> Refusal | None:
    """Replace part of a buffer.

    In the specification a guest may replace any range. Envoy (``Buffer::copyFrom`` in ``context.cc``) has three cases:
    `start` 0 replaces the first `length` bytes (`length` 0 prepends); a `start` at or after the end appends; any
    other `start` is BAD_ARGUMENT. The profile's flag ``splice_buffers`` decides.
    """
    found = content(vm, buffer)
    if isinstance(found, Refusal):
        return found
    most = 0 if vm.context.buffers[buffer] is None else vm.context.writable_size(buffer)
    if not most:
        return misuse(vm, "the {0} cannot be changed", words(buffer))
    if 0 < start < len(found) and not vm.profile.splice_buffers:
        return Refusal(
            Status.BAD_ARGUMENT,
            "start {0} is inside the {1} bytes: only the front (0), the end or the whole can be set",
            start,
            len(found),
        )
    size = len(found) - max(min(len(found) - start, length), 0) + len(data)
    if len(found) < size > most:
        return Refusal(
            Status.INTERNAL_FAILURE, "the {0} would have {1} bytes, and {2} is the limit", words(buffer), size, most
        )
    if isinstance(found, bytes):
        vm.context.buffers[buffer] = found[:start] + data + found[start + length :]
    else:
        found.splice(start, length, data)
    return None


def proxy_get_configuration(vm: VmState) -> bytes:
    """ABI 0.1.0: the plugin's configuration in ``on_configure``, else the VM's (as in Envoy's host)."""
    configuration = vm.context.root.buffers[BufferType.PLUGIN_CONFIGURATION]
    return vm.vm_configuration if configuration is None else bytes(configuration)

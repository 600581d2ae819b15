"""Shared data and shared queues, through which VMs communicate."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal, misuse
from proxywasm_host.abi.types import Status
from proxywasm_host.services import UnknownQueue, UnknownZone, ZoneFull


def full(vm: VmState, error: ZoneFull) -> Refusal:
    """Raise `error`, which is answered like any exceeded limit; under `misuse_fails` raise RestrictedCall."""
    if not vm.profile.misuse_fails:
        raise error
    return misuse(vm, str(error))


def proxy_get_shared_data(vm: VmState, key: bytes) -> tuple[bytes, int] | Refusal:
    """The value of a key and its CAS number. Keys belong to the guest's vm_id (``shared_data.cc``)."""
    try:
        found = vm.services.shared_data.get(vm.vm_id, key)
    except UnknownZone as error:
        return misuse(vm, str(error))
    return found or Refusal(Status.NOT_FOUND, "no shared data under {0!r} for vm_id {1!r}", key, vm.vm_id)


def proxy_set_shared_data(vm: VmState, key: bytes, value: bytes, cas: int) -> Refusal | None:
    """Set a key. CAS_MISMATCH if `cas` is not 0 and the key has another number now (``shared_data.cc``)."""
    data = vm.services.shared_data
    try:
        taken = cas == 0 and vm.profile.cas_zero_is_absent and data.get(vm.vm_id, key) is not None
        if not taken and data.set(vm.vm_id, key, value, cas):
            return None
    except UnknownZone as error:
        return misuse(vm, str(error))
    except ZoneFull as error:
        return full(vm, error)
    return Refusal(Status.CAS_MISMATCH, "shared data under {0!r} has changed since CAS {1}", key, cas)


def proxy_register_shared_queue(vm: VmState, name: bytes) -> int | Refusal:
    """Register a queue of the guest's vm_id, and call ``on_queue_ready`` for its messages. Returns its token.

    A queue that exists keeps its token and notifies this plugin from now on (``shared_queue.cc``).
    """
    try:
        return vm.context.root.register_queue(name)
    except UnknownZone as error:
        return misuse(vm, str(error))


def proxy_resolve_shared_queue(vm: VmState, vm_id: bytes, name: bytes) -> int | Refusal:
    """The token of a registered queue. An empty `vm_id` is the guest's (``lookupSharedQueue`` in ``context.cc``)."""
    owner = vm_id.decode("utf-8", "surrogateescape") or vm.vm_id
    token = vm.services.shared_queues.resolve(owner, name)
    return token or Refusal(Status.NOT_FOUND, "no queue {0!r} was registered for vm_id {1!r}", name, owner)


def proxy_dequeue_shared_queue(vm: VmState, token: int) -> bytes | Refusal:
    """Remove the oldest message: EMPTY without one, NOT_FOUND for an unknown token (``shared_queue.cc``)."""
    try:
        message = vm.services.shared_queues.dequeue(token)
    except UnknownQueue as error:
        return Refusal(Status.NOT_FOUND, str(error))
    return Refusal(Status.EMPTY, "queue {0} is empty", token) if message is None else message


def proxy_enqueue_shared_queue(vm: VmState, token: int, data: bytes) -> Refusal | None:
    """Append a message, and notify the plugin that registered the queue (``shared_queue.cc``)."""
    try:
        vm.services.shared_queues.enqueue(token, data)
    except UnknownQueue as error:
        return Refusal(Status.NOT_FOUND, str(error))
    except ZoneFull as error:
        return full(vm, error)
    return None

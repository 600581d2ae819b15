"""Properties (attributes) of the stream, the plugin and the proxy."""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.types import Status
from proxywasm_host.abi.values import decode_path, encode_text, encode_value
from proxywasm_host.errors import UnencodableValue


def proxy_get_property(vm: VmState, path: bytes) -> bytes | Refusal:
    """The value of a property: NOT_FOUND if there is none, SERIALIZATION_FAILURE if the ABI has no form for it.

    `path` has NULs between its segments (``getProperty`` and ``serializeValue`` in ``context.cc``).
    """
    segments = decode_path(path)
    try:
        encode = encode_text if vm.profile.text_properties else encode_value
        return encode(vm.context.get_property(segments))
    except LookupError:
        return Refusal(Status.NOT_FOUND, "no property {0}", ".".join(segments))
    except UnencodableValue as error:
        return Refusal(Status.SERIALIZATION_FAILURE, "property {0}: {1}", ".".join(segments), error)


def proxy_set_property(vm: VmState, path: bytes, value: bytes) -> Refusal | None:
    """Set a property of the stream, for later filters and the access log (``setProperty`` in ``context.cc``)."""
    return vm.context.set_property(path.decode("utf-8", "surrogateescape"), value)

"""The host: its hostcalls (the module `_proxywasm`, or a fake of it under CPython), its errors, and its properties."""

from __future__ import annotations

import struct
from typing import Any

try:
    import _proxywasm as host
    from _proxywasm import Headers
except ImportError:
    from proxywasm import _fake as host
    from proxywasm._headers import Headers

__all__ = [
    "Headers",
    "HostError",
    "clear_route_cache",
    "foreign",
    "get_property",
    "host",
    "property_bytes",
    "set_property",
    "vm_config",
]

STATUS = ["Ok", "NotFound", "BadArgument", "SerializationFailure", "ParseFailure", "BadExpression", "InvalidMemoryAccess", "Empty", "CasMismatch", "ResultMismatch", "InternalFailure", "BrokenConnection", "Unimplemented"]


class HostError(Exception):
    """The host refused a call. `status` is the ABI's number (2: a bad argument, such as an unknown cluster)."""

    def __init__(self, status: int, why: str = "") -> None:
        words = "the host answers %s" % (STATUS[status] if status < len(STATUS) else status)
        super().__init__(words + ": " + why if why else words)
        self.status = status


host.error(HostError)

# The types of Envoy's attributes that are not text: i is an integer, t a time, b a boolean, m a map.
_TYPES = {
    "request.time": "t", "request.duration": "t", "request.size": "i", "request.total_size": "i",
    "request.headers": "m", "response.code": "i", "response.size": "i", "response.total_size": "i",
    "response.flags": "i", "response.grpc_status": "i", "response.headers": "m", "response.trailers": "m",
    "source.port": "i", "destination.port": "i", "upstream.port": "i", "connection.id": "i", "connection.mtls": "b",
    "listener_direction": "i", "plugin_listener_direction": "i",
}  # fmt: skip


def _path(path: str) -> str:
    return path.replace("\\.", "\1").replace(".", "\0").replace("\1", ".")


def property_bytes(path: str) -> bytes | None:
    """The property at a path such as ``source.address``, in bytes as the host has it; None if it has none.

    Write a dot within a part of the path as ``\\\\.``. A name set by `set_property` is found as it is.
    """
    value: bytes | None = host.get_property(_path(path))
    return host.get_property(path) if value is None and "." in path else value


def get_property(path: str) -> Any:
    """The property at a path as text, int, bool, float (seconds) or dict; None if the host has none."""
    value = property_bytes(path)
    kind = _TYPES.get(path)
    if value is None or kind is None:
        return value if value is None else value.decode()
    if kind == "b":
        return value != b"\0" and value != b""
    if kind == "i":
        return int.from_bytes(value, "little")
    if kind == "t":
        return int.from_bytes(value, "little") / 1e9
    count = struct.unpack_from("<I", value)[0]
    at = 4 + 8 * count
    pairs = {}
    for i in range(count):
        name, size = struct.unpack_from("<II", value, 4 + 8 * i)
        pairs[value[at : at + name].decode()] = value[at + name + 1 : at + name + 1 + size].decode()
        at += name + size + 2
    return pairs


def set_property(name: str, value: str | bytes) -> None:
    """Set a property of the stream, for later filters and (as ``wasm.name``) the access log. Raises: HostError."""
    host.set_property(name, value)


def foreign(name: str, argument: str | bytes = b"") -> bytes:
    """Call a foreign function of the host. Raises: HostError, with status 1 if the host has no such function."""
    result: bytes = host.foreign(name, argument)
    return result


def clear_route_cache() -> None:
    """Make the host choose the route again, by the current headers. Raises: HostError, if it cannot."""
    foreign("clear_route_cache")


def vm_config() -> bytes:
    """The configuration of the VM, in bytes. That of the plugin is `config` of its filter."""
    configuration: bytes = host.get_buffer(6, 0, 0x7FFFFFFF)
    return configuration

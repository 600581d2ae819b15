"""ProtoBuf:1, the protocol of Kong's PDK for Go: frames over a Unix socket.

A frame is a size (32 bits, little endian) and this number of bytes. A call is a frame with ``RpcCall``. While an event
is handled, the server sends pairs of frames: the name of a function of the PDK, and its argument. Each pair is answered
by a frame with the result. An empty frame ends them, and ``RpcReturn`` follows. After an error the server hangs up.

Source: ``pluginsocket.proto`` and ``kong/runloop/plugin_servers/pb_rpc.lua``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from proxywasm_host.kong.servers.events import MALFORMED, Called, Done, Event, PluginServerError, Started
from proxywasm_host.protobuf import field, fields

__all__ = ["ProtoBuf"]

SIZE = struct.Struct("<I")
DOUBLE = struct.Struct("<d")
MOST = 64 << 20
"""Most bytes of a frame."""
START_INSTANCE, HANDLE_EVENT = 33, 36
INSTANCE_STATUS = 33
I32 = 1 << 32


def double(number: int, value: float) -> bytes:
    """A field of 64 bits; `number` is less than 16."""
    return bytes([number << 3 | 1]) + DOUBLE.pack(value)


def first(data: bytes, number: int = 1) -> Any:
    """The last value of a field, or ``None``."""
    return dict(fields(data)).get(number)


def text(data: Any) -> str:
    return data.decode("latin-1") if isinstance(data, bytes) else ""


def raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")


# google.protobuf.Value, Struct and ListValue.


def value_out(value: Any) -> bytes:
    """Encode a ``Value``."""
    if value is None:
        return field(1, 0)
    if isinstance(value, bool):
        return field(4, int(value))
    if isinstance(value, (int, float)):
        return double(2, float(value))
    if isinstance(value, (str, bytes)):
        return field(3, raw(value))
    if isinstance(value, dict):
        return field(5, struct_out(value))
    return field(6, list_out(value))


def struct_out(value: dict[str, Any]) -> bytes:
    """Encode a ``Struct``."""
    return b"".join(field(1, field(1, raw(key)) + field(2, value_out(each))) for key, each in value.items())


def list_out(values: Iterable[Any]) -> bytes:
    """Encode a ``ListValue``."""
    return b"".join(field(1, value_out(each)) for each in values)


def value_in(data: bytes) -> Any:
    """Decode a ``Value``."""
    for number, value in fields(data):
        if number == 2 and isinstance(value, bytes):
            (found,) = DOUBLE.unpack(value)
            return int(found) if found.is_integer() else found
        if number == 3:
            return text(value)
        if number == 4:
            return bool(value)
        if number == 5 and isinstance(value, bytes):
            return struct_in(value)
        if number == 6 and isinstance(value, bytes):
            return list_in(value)
    return None


def struct_in(data: bytes) -> dict[str, Any]:
    """Decode a ``Struct``."""
    found = {}
    for _, entry in fields(data):
        pair = dict(fields(entry if isinstance(entry, bytes) else b""))
        held = pair.get(2, b"")
        found[text(pair.get(1, b""))] = value_in(held if isinstance(held, bytes) else b"")
    return found


def list_in(data: bytes) -> list[Any]:
    """Decode a ``ListValue``."""
    return [value_in(value) for _, value in fields(data) if isinstance(value, bytes)]


def _signed(value: Any) -> int:
    number = int(value or 0) & 0xFFFFFFFF
    return number - I32 if number >= I32 // 2 else number


def _key_value(data: bytes) -> tuple[Any, ...]:
    held = first(data, 2)
    return text(first(data)), value_in(held if isinstance(held, bytes) else b"")


def _exit(data: bytes) -> tuple[Any, ...]:
    headers = first(data, 3)
    return _signed(first(data)), text(first(data, 2)), struct_in(headers if isinstance(headers, bytes) else b"")


def _authenticate(data: bytes) -> tuple[Any, ...]:
    consumer, credential = first(data) or b"", first(data, 2) or b""
    who = {"id": text(first(consumer)), "username": text(first(consumer, 3)), "custom_id": text(first(consumer, 4))}
    return who, {"id": text(first(credential)), "consumer_id": text(first(credential, 2))}


ARGUMENTS: dict[str, Callable[[bytes], tuple[Any, ...]]] = {
    "": lambda _: (),
    "string": lambda data: (text(first(data)),),
    "int": lambda data: (_signed(first(data)),),
    "bool": lambda data: (bool(first(data)),),
    "kv": _key_value,
    "list": lambda data: tuple(list_in(data)),
    "struct": lambda data: (struct_in(data),),
    "exit": _exit,
    "target": lambda data: (text(first(data)), _signed(first(data, 2))),
    "consumer": lambda data: (text(first(data)), bool(first(data, 2))),
    "authenticate": _authenticate,
}


def _entity_out(*names: tuple[int, str]) -> Callable[[Any], bytes]:
    """A function that encodes an entity: text, numbers and lists of text."""

    def out(entity: Any) -> bytes:
        found = []
        for number, name in names:
            value = (entity or {}).get(name)
            if isinstance(value, (list, tuple)):
                found += [field(number, raw(each)) for each in value if isinstance(each, str)]
            elif isinstance(value, dict) and "id" in value:
                found.append(field(number, field(1, raw(value["id"]))))
            elif isinstance(value, (bool, int)) and value:
                found.append(field(number, int(value)))
            elif isinstance(value, str) and value:
                found.append(field(number, raw(value)))
        return b"".join(found)

    return out


def _string_out(value: Any) -> bytes:
    return b"" if value is None else field(1, raw(value))


def _captures_out(value: Any) -> bytes:
    named = value.get("named", {}).items()
    return b"".join([field(1, raw(each)) for each in value.get("unnamed", ())]) + b"".join(
        field(2, field(1, raw(key)) + field(2, raw(each))) for key, each in named
    )


RESULTS: dict[str, Callable[[Any], bytes]] = {
    "": lambda _: b"",
    "string": _string_out,
    "body": _string_out,
    "int": lambda value: field(1, int(value or 0)),
    "number": lambda value: double(1, float(value or 0)),
    "bool": lambda value: field(1, int(bool(value))),
    "value": value_out,
    "struct": lambda value: struct_out(value or {}),
    "captures": _captures_out,
    "memory": lambda _: b"",
    "credential": _entity_out((1, "id"), (2, "consumer_id")),
    "consumer": _entity_out((1, "id"), (2, "created_at"), (3, "username"), (4, "custom_id"), (5, "tags")),
    "route": _entity_out(
        *((1, "id"), (2, "created_at"), (3, "updated_at"), (4, "name"), (5, "protocols"), (6, "methods"), (7, "hosts")),
        *((8, "paths"), (10, "https_redirect_status_code"), (11, "regex_priority"), (12, "strip_path")),
        *((13, "preserve_host"), (17, "tags"), (18, "service")),
    ),
    "service": _entity_out(
        *((1, "id"), (2, "created_at"), (3, "updated_at"), (4, "name"), (5, "retries"), (6, "protocol"), (7, "host")),
        *((8, "port"), (9, "path"), (10, "connect_timeout"), (11, "write_timeout"), (12, "read_timeout"), (13, "tags")),
    ),
}

TYPES: dict[str, tuple[str, str]] = {
    "client.get_ip": ("", "string"),
    "client.get_forwarded_ip": ("", "string"),
    "client.get_port": ("", "int"),
    "client.get_forwarded_port": ("", "int"),
    "client.get_credential": ("", "credential"),
    "client.load_consumer": ("consumer", "consumer"),
    "client.get_consumer": ("", "consumer"),
    "client.authenticate": ("authenticate", ""),
    "client.get_protocol": ("bool", "string"),
    "ctx.shared.set": ("kv", ""),
    "ctx.shared.get": ("string", "value"),
    "ip.is_trusted": ("string", "bool"),
    **{f"log.{level}": ("list", "") for level in ("alert", "crit", "err", "warn", "notice", "info", "debug")},
    "log.set_serialize_value": ("kv", ""),
    "log.serialize": ("", "string"),
    "nginx.get_var": ("string", "string"),
    "nginx.get_tls1_version_str": ("", "string"),
    "nginx.set_ctx": ("kv", "string"),
    "nginx.get_ctx": ("string", "value"),
    "nginx.req_start_time": ("", "number"),
    "nginx.get_subsystem": ("", "string"),
    "node.get_id": ("", "string"),
    "node.get_memory_stats": ("", "memory"),
    **{f"request.get_{name}": ("", "string") for name in ("scheme", "host", "forwarded_scheme", "forwarded_host")},
    **{f"request.get_{name}": ("", "int") for name in ("port", "forwarded_port")},
    "request.get_http_version": ("", "number"),
    **{f"request.get_{name}": ("", "string") for name in ("method", "path", "path_with_query", "raw_query")},
    "request.get_query_arg": ("string", "string"),
    "request.get_query": ("int", "struct"),
    "request.get_header": ("string", "string"),
    "request.get_headers": ("int", "struct"),
    "request.get_raw_body": ("", "body"),
    "request.get_uri_captures": ("", "captures"),
    "response.get_status": ("", "int"),
    "response.get_header": ("string", "string"),
    "response.get_headers": ("int", "struct"),
    "response.get_source": ("", "string"),
    "response.set_status": ("int", ""),
    "response.set_header": ("kv", ""),
    "response.add_header": ("kv", ""),
    "response.clear_header": ("string", ""),
    "response.set_headers": ("struct", ""),
    "response.exit": ("exit", ""),
    "router.get_route": ("", "route"),
    "router.get_service": ("", "service"),
    "service.set_upstream": ("string", ""),
    "service.set_target": ("target", ""),
    **{f"service.request.set_{name}": ("string", "") for name in ("scheme", "path", "raw_query", "method", "raw_body")},
    "service.request.set_query": ("struct", ""),
    "service.request.set_header": ("kv", ""),
    "service.request.add_header": ("kv", ""),
    "service.request.clear_header": ("string", ""),
    "service.request.set_headers": ("struct", ""),
    "service.response.get_status": ("", "int"),
    "service.response.get_header": ("string", "string"),
    "service.response.get_headers": ("int", "struct"),
    "service.response.get_raw_body": ("", "body"),
}
"""Parameters and results of each function of the PDK, by its name without ``kong.``."""


class ProtoBuf:
    """The protocol of one connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._sequence = 0
        self._awaits = "return"
        """The expected frame: ``return``, ``method``, ``argument``, or the return that ends an event (``end``)."""
        self._method = ""

    def _call(self, command: int, message: bytes) -> bytes:
        self._sequence += 1
        return framed(field(1, self._sequence) + field(command, message))

    def start_instance(self, plugin: str, config: str) -> bytes:
        """Request an instance."""
        self._awaits = "return"
        return self._call(START_INSTANCE, field(1, plugin) + field(2, config))

    def handle_event(self, instance: int, phase: str) -> bytes:
        """Request a phase."""
        self._awaits = "method"
        return self._call(HANDLE_EVENT, field(1, instance) + field(2, phase))

    def answer(self, method: str, result: Any) -> bytes:
        """Return the result of a function of the PDK."""
        self._awaits = "method"
        return framed(RESULTS[TYPES[method.removeprefix("kong.")][1]](result))

    def answer_error(self, method: str, message: str) -> bytes:
        """Report that a function of the PDK has failed: the protocol has only an empty result for it."""
        self._awaits = "method"
        return framed(b"")

    def feed(self, data: bytes) -> Event | None:
        """The server's message. Raises: PluginServerError."""
        self._buffer += data
        try:
            while (frame := self._frame()) is not None:
                event = self._read(frame)
                if event is not None:
                    return event
        except (*MALFORMED, struct.error) as error:
            raise PluginServerError(f"not a message of ProtoBuf:1: {error}") from None
        return None

    def _frame(self) -> bytes | None:
        if len(self._buffer) < SIZE.size:
            return None
        (size,) = SIZE.unpack_from(self._buffer)
        if size > MOST:
            raise PluginServerError(f"a frame of {size} bytes; at most {MOST} are accepted")
        if len(self._buffer) < SIZE.size + size:
            return None
        frame = bytes(self._buffer[SIZE.size : SIZE.size + size])
        del self._buffer[: SIZE.size + size]
        return frame

    def _read(self, frame: bytes) -> Event | None:
        if self._awaits == "return":
            status = first(frame, INSTANCE_STATUS)
            return Started(_signed(first(status if isinstance(status, bytes) else b"", 2)))
        if self._awaits == "end":
            self._awaits = "return"
            return Done()
        if self._awaits == "method":
            self._method, self._awaits = text(frame), "argument" if frame else "end"
            return None
        types = TYPES.get(self._method.removeprefix("kong."))
        if types is None:
            raise PluginServerError(f"the plugin calls {self._method!r}, which is not a function of the protocol")
        return Called(self._method, ARGUMENTS[types[0]](frame))


def framed(message: bytes) -> bytes:
    """A message as a frame."""
    return SIZE.pack(len(message)) + message

"""MsgPack:1, the protocol of Kong's PDKs for Python and JavaScript: MessagePack-RPC over a Unix socket.

A call is ``[0, id, "plugin.Method", [argument]]``, its answer ``[1, id, error, result]``; ``[2, …]`` are notices. An
event is answered with the function of the PDK that the plugin calls, and so is each ``Step``, until it is ``"ret"``.

Source: ``kong/runloop/plugin_servers/mp_rpc.lua``.
"""

from __future__ import annotations

from typing import Any

import msgpack

from proxywasm_host.kong.servers.events import MALFORMED, Called, Done, Event, PluginServerError, Refused, Started

__all__ = ["MessagePack"]

MOST = 64 << 20
"""Most bytes of a message."""
MOST_NOTICES = 1000
"""Most notices before an answer: their reader has other work, too."""
MOST_VALUES = 1 << 17
"""Most values in lists and maps of a message: each takes about a microsecond and 140 bytes."""
STEPS = {
    **dict.fromkeys(("kong.client.get_credential", "kong.client.authenticate"), "StepCredential"),
    **dict.fromkeys(("kong.client.load_consumer", "kong.client.get_consumer"), "StepConsumer"),
    "kong.node.get_memory_stats": "StepMemoryStats",
    "kong.router.get_route": "StepRoute",
    "kong.router.get_service": "StepService",
    **dict.fromkeys(
        (
            *("kong.request.get_query", "kong.request.get_headers", "kong.response.get_headers"),
            "kong.service.response.get_headers",
        ),
        "StepMultiMap",
    ),
}
"""The types of `Step` for methods whose results have a special one."""


class MessagePack:
    """The protocol of one connection."""

    def __init__(self) -> None:
        self._read_values = read = [0]

        def counted(values: Any) -> Any:
            read[0] += len(values)
            if read[0] > MOST_VALUES:
                raise ValueError(f"more than {MOST_VALUES} values")
            return values

        self._unpacker = unpacker = msgpack.Unpacker(
            raw=True,
            strict_map_key=False,
            max_buffer_size=MOST,
            max_array_len=MOST_VALUES,
            max_map_len=MOST_VALUES,
            list_hook=counted,
            object_hook=counted,
        )
        self._begins_again = type(unpacker).__module__ == "msgpack.fallback"
        """Without its C extension, msgpack reads a message from its start again when more of it has come."""
        self._pack = msgpack.Packer(use_bin_type=True).pack
        self._id = 0
        self._event = 0
        self._starting = False
        self._notices = 0

    def _call(self, method: str, argument: dict[str, Any]) -> bytes:
        self._id += 1
        packed: bytes = self._pack([0, self._id, f"plugin.{method}", [argument]])
        return packed

    def start_instance(self, plugin: str, config: str) -> bytes:
        """Request an instance."""
        self._starting = True
        return self._call("StartInstance", {"Name": plugin, "Config": config})

    def handle_event(self, instance: int, phase: str) -> bytes:
        """Request a phase."""
        return self._call("HandleEvent", {"InstanceId": instance, "EventName": phase})

    def answer(self, method: str, result: Any) -> bytes:
        """Return the result of a function of the PDK."""
        return self._call(STEPS.get(method, "Step"), {"EventId": self._event, "Data": _out(result)})

    def answer_error(self, method: str, message: str) -> bytes:
        """Report that a function of the PDK has failed."""
        return self._call("StepError", {"EventId": self._event, "Data": message})

    def feed(self, data: bytes) -> Event | None:
        """The server's message. Raises: PluginServerError."""
        if self._begins_again:
            self._read_values[0] = 0
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                self._read_values[0] = 0
                kind, id, error, result = (*message, None)[:4] if message[0] == 2 else message
                if kind == 2:
                    self._notices += 1
                    if self._notices > MOST_NOTICES:
                        raise PluginServerError(f"more than {MOST_NOTICES} notices without an answer")
                    continue
                if kind != 1 or id != self._id:
                    raise PluginServerError(f"an answer to message {id!r}, while {self._id} is under way")
                return self._read(error, result)
        except (*MALFORMED, msgpack.UnpackException) as error:
            raise PluginServerError(f"not a message of MsgPack:1: {error!r}") from None
        return None

    def _read(self, error: Any, result: Any) -> Event:
        self._notices = 0
        if error is not None:
            self._starting = False
            return Refused(str(_in(error)))
        if self._starting:
            self._starting = False
            return Started(int(result[b"Id"]))
        self._event = result[b"EventId"]
        wanted = result[b"Data"]
        if wanted == b"ret":
            return Done()
        return Called(str(_in(wanted[b"Method"])), tuple(map(_in, wanted.get(b"Args") or ())))


def _in(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list):
        return [_in(each) for each in value]
    return {_in(key): _in(each) for key, each in value.items()} if isinstance(value, dict) else value


def _out(value: Any) -> Any:
    """A value to send: bytes that are UTF-8 become text, others stay bytes."""
    if isinstance(value, str):
        raw = value.encode("latin-1", "replace")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw
    if isinstance(value, (list, tuple)):
        return [_out(each) for each in value]
    return {key: _out(each) for key, each in value.items()} if isinstance(value, dict) else value

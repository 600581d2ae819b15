"""Kong's side of ProtoBuf:1, as far as the work needs it: frames, and four messages of ``pluginsocket.proto``."""

from __future__ import annotations

import socket
import struct

from benchmarks.contenders.kong import Kong
from proxywasm_host.protobuf import fields

SIZE = struct.Struct("<I")
START_INSTANCE, HANDLE_EVENT = 33, 36  # in RpcCall


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(number: int, value: bytes) -> bytes:
    """A field that has a length."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def strings(data: bytes) -> list[bytes]:
    """The arguments in a ``String`` or in a ``KV`` whose value is a string."""
    found = [value for _, value in fields(data) if isinstance(value, bytes)]
    if len(found) == 2:
        [(_, inner)] = fields(found[1])
        assert isinstance(inner, bytes)
        found[1] = inner
    return found


class ProtoBuf:
    """A connection to a plugin server with one instance of the plugin `name`."""

    def __init__(self, connection: socket.socket, kong: Kong, name: bytes) -> None:
        self.connection = connection
        self.reader = connection.makefile("rb")
        self.methods = kong.methods
        self.sequence = 0
        returned = dict(fields(self.call(START_INSTANCE, text(1, name) + text(2, b"{}"))))
        status = returned[33]
        assert isinstance(status, bytes)
        instance = dict(fields(status))[2]
        assert isinstance(instance, int)
        self.instance = whole(1, instance)

    def send(self, *frames: bytes) -> None:
        self.connection.sendall(b"".join([SIZE.pack(len(frame)) + frame for frame in frames]))

    def receive(self) -> bytes:
        (size,) = SIZE.unpack(self.reader.read(4))
        return self.reader.read(size)

    def call(self, command: int, message: bytes) -> bytes:
        self.sequence += 1
        self.send(whole(1, self.sequence) + text(command, message))
        return self.receive()

    def event(self, phase: bytes) -> None:
        """One phase of one request: call what the plugin wants called, until it is done."""
        name = self.call(HANDLE_EVENT, self.instance + text(2, phase))
        while name:
            result = self.methods[name](*strings(self.receive()))
            self.send(b"" if result is None else text(1, result))
            name = self.receive()
        self.receive()

    def close(self) -> None:
        self.reader.close()

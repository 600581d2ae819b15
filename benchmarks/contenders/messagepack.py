"""Kong's side of MessagePack-RPC: a call is ``[0, id, method, arguments]``, its answer ``[1, id, error, result]``."""

from __future__ import annotations

import socket
from typing import Any

import msgpack

from benchmarks.contenders.kong import Kong

DONE = b"ret"


class MessagePack:
    """A connection to a plugin server with one instance of the plugin `name`."""

    def __init__(self, connection: socket.socket, kong: Kong, name: bytes) -> None:
        self.connection = connection
        self.unpacker = msgpack.Unpacker(raw=True)
        self.pack = msgpack.Packer(use_bin_type=False).pack
        self.methods = kong.methods
        self.message = 0
        self.instance = self.call(b"plugin.StartInstance", {b"Name": name, b"Config": b"{}"})[b"Id"]

    def call(self, method: bytes, argument: dict[bytes, Any]) -> dict[bytes, Any]:
        self.message += 1
        self.connection.sendall(self.pack([0, self.message, method, [argument]]))
        while True:
            for _, message, error, result in self.unpacker:
                if error is not None or message != self.message:
                    raise RuntimeError(f"the plugin server answers message {message} with {error!r}")
                return dict(result)
            data = self.connection.recv(65536)
            if not data:
                raise RuntimeError("the plugin server has hung up")
            self.unpacker.feed(data)

    def event(self, phase: bytes) -> None:
        """One phase of one request: call what the plugin wants called, until it is done."""
        step = self.call(b"plugin.HandleEvent", {b"InstanceId": self.instance, b"EventName": phase})
        event = step[b"EventId"]
        while (wanted := step[b"Data"]) != DONE:
            result = self.methods[wanted[b"Method"]](*wanted[b"Args"])
            step = self.call(b"plugin.Step", {b"EventId": event, b"Data": result})

    def close(self) -> None:
        pass

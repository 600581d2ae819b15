"""A client of `ClientProtocol` in memory: bytes in, and bytes out of an application that tells what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from proxywasm_host.integrations.asgi.scope import target
from proxywasm_host.serve.config import Clients
from proxywasm_host.serve.protocol import ClientProtocol

App = Callable[[Any, Any, Any], Awaitable[None]]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was asked, as JSON: method, target, headers and body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    headers = [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in scope["headers"]]
    said = json.dumps([scope["method"], target(scope).decode("latin-1"), headers, body.decode("latin-1")]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


def answering(*messages: dict[str, Any]) -> App:
    """An application that takes the request and sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Transport:
    """What the event loop would give a protocol."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = self.aborted = self.paused = self.ended = False
        self.unsent = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 4711), "sockname": ("198.51.100.1", 80)}.get(name, default)

    def write(self, data: bytes) -> None:
        assert not self.closed
        assert not self.ended
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Wire:
    """One connection. Made in an event loop."""

    def __init__(
        self, app: App = echo, *, state: ServerState | None = None, refused: Any = None, idle: float = 300.0, **clients: Any
    ) -> None:
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None)
        self.state = state or ServerState()
        self.transport = Transport()
        self.protocol = ClientProtocol(
            config, self.state, {}, asyncio.get_running_loop(), clients=Clients(**clients), idle=idle, refused=refused
        )  # fmt: skip
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]

    async def send(self, *parts: bytes) -> bytes:
        """Let the client send these, and give all that it has got when nothing is under way any more."""
        for part in parts:
            self.protocol.data_received(part)
            await asyncio.sleep(0)
        await self.settle()
        return self.transport.written

    async def settle(self) -> None:
        """Wait until the application has done what it can."""
        before = None
        while before != self.transport.written:
            before = self.transport.written
            for _ in range(5):
                await asyncio.sleep(0)

    def leave(self) -> None:
        """The client closes the connection."""
        self.protocol.connection_lost(None)


def seen(answers: bytes) -> list[Any]:
    """What `echo` says that it was asked, in each of these answers."""
    told = []
    while answers:
        head, _, answers = answers.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        told.append(json.loads(answers[:length]))
        answers = answers[length:]
    return told

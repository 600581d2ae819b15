"""An ASGI server in memory: what an application is given and what it sends, message by message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import anyio

REQUEST_END: dict[str, Any] = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT = {"type": "http.disconnect"}


def scope(method: str = "GET", target: str = "/", headers: Iterable[tuple[str, str]] = (), **more: Any) -> dict:
    path, _, query = target.partition("?")
    pairs = [(name.encode(), value.encode()) for name, value in headers]
    if not any(name == b"host" for name, _ in pairs):
        pairs.insert(0, (b"host", b"example.com"))
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": pairs, "client": ("192.0.2.1", 4711), "server": ("198.51.100.1", 80), "extensions": {}, **more,
    }  # fmt: skip


class Server:
    """One request of a client that sends `body` part by part, and goes away when it is told to."""

    def __init__(self, body: Iterable[bytes] = (), *, gone: bool = False) -> None:
        parts = list(body)
        self.incoming = [{"type": "http.request", "body": part, "more_body": True} for part in parts[:-1]]
        self.incoming.append({"type": "http.request", "body": parts[-1] if parts else b"", "more_body": False})
        if gone:
            self.incoming[-1] = DISCONNECT
        self.sent: list[dict[str, Any]] = []
        self.left = anyio.Event()
        self.changed = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        if self.incoming:
            return self.incoming.pop(0)
        if not self.complete:
            await self.left.wait()
        return DISCONNECT

    async def send(self, message: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was sent makes it true."""
        with anyio.fail_after(10):
            while not condition():
                await self.changed.wait()

    @property
    def status(self) -> int | None:
        return next((message["status"] for message in self.sent if message["type"] == "http.response.start"), None)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return next(message["headers"] for message in self.sent if message["type"] == "http.response.start")

    @property
    def chunks(self) -> list[bytes]:
        return [message["body"] for message in self.sent if message["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def complete(self) -> bool:
        last = self.sent[-1] if self.sent else {}
        return last.get("more_body") is False or last.get("more_trailers") is False

    def header(self, name: bytes) -> bytes | None:
        return dict(reversed(self.headers)).get(name)


@asynccontextmanager
async def lifespan(app):
    """The application between its start and its end."""
    to_app, from_app = (anyio.create_memory_object_stream(1) for _ in range(2))
    async with anyio.create_task_group() as group:
        group.start_soon(
            app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, to_app[1].receive, from_app[0].send
        )
        await to_app[0].send({"type": "lifespan.startup"})
        answer = await from_app[1].receive()
        assert answer == {"type": "lifespan.startup.complete"}, answer
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await to_app[0].send({"type": "lifespan.shutdown"})
                assert await from_app[1].receive() == {"type": "lifespan.shutdown.complete"}
                for stream in (*to_app, *from_app):
                    stream.close()


async def respond(send, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = (), *chunks: bytes) -> None:
    """Send a response, its body in as many parts as there are."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    for number, chunk in enumerate(chunks or [b""], 1):
        await send({"type": "http.response.body", "body": chunk, "more_body": number < len(chunks)})


async def read(receive) -> bytes:
    """The whole body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        more = message["more_body"]
    return body


async def get(app, *args, body=(), **more) -> Server:
    """Send one request whole, and say what came of it."""
    server = Server(body)
    await app(scope(*args, **more), server.receive, server.send)
    return server

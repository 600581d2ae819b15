"""An upstream that does as its path says, on a port of its own. Raw sockets, so that it can also be wrong."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from tests.serve.ports import listening

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class Request:
    """What came in: the first line's words, headers in order, the body as it was framed and as it is meant."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        self.method, self.target, self.version = first.split(" ")
        self.headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]
        self.body = b""

    def __getitem__(self, name: str) -> str | None:
        return {key.lower(): value for key, value in self.headers}.get(name)

    async def read(self, reader: Reader) -> None:
        if self["transfer-encoding"]:
            parts = []
            while size := int(await reader.readline(), 16):
                parts.append(await reader.readexactly(size))
                await reader.readexactly(2)
            await reader.readline()
            self.body = b"".join(parts)
        else:
            self.body = await reader.readexactly(int(self["content-length"] or 0))

    def as_json(self) -> bytes:
        return json.dumps(
            {"method": self.method, "target": self.target, "headers": self.headers, "body": self.body.decode("latin-1")}
        ).encode()


Answer = Callable[[Request, Reader, Writer], Awaitable[bool]]


class Origin:
    """Echoes requests as JSON, unless `answers` has something else for a path; returns whether the connection stays."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.answers: dict[str, Answer] = {}
        self.port = 0
        self.loop: asyncio.AbstractEventLoop
        """It runs in another thread."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                request = Request(await reader.readuntil(b"\r\n\r\n"))
                self.requests.append(request)
                answer = self.answers.get(request.target.partition("?")[0])
                if answer is not None:
                    if not await answer(request, reader, writer):
                        return
                    continue
                await request.read(reader)
                body = b"" if request.method == "HEAD" else request.as_json()
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                writer.write(head + body)  # at once: a second write would wait until the first is acknowledged
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ValueError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def __aenter__(self) -> Origin:
        # a backlog of asyncio's 100 drops what a burst brings, and the client's kernel asks again after seconds
        self._server = await asyncio.start_server(self.serve, sock=listening(), backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


def raw(*parts: bytes, keep: bool = False) -> Answer:
    """Write these parts, one after the other."""

    async def answer(request: Request, reader: Reader, writer: Writer) -> bool:
        await request.read(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        return keep

    return answer


@contextmanager
def running() -> Iterator[Origin]:
    """An origin in a thread of its own."""
    origin = Origin()
    loop = origin.loop = asyncio.new_event_loop()

    async def start() -> None:
        await origin.__aenter__()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield origin
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(origin.__aexit__())
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

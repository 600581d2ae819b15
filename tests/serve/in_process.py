"""An application that serves in this process, and clients of it, as bytes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.client import HTTPResponse
from typing import Any

from proxywasm_host.serve.application import Application
from proxywasm_host.serve.metrics import SEPARATOR
from proxywasm_host.serve.source import Source
from tests.serve.ports import listening


class Served:
    """An `Application` that runs, in the event loop that has made it."""

    def __init__(self, application: Application, address: tuple[str, int], tcp: list[tuple[str, int]]) -> None:
        self.application = application
        self.address = address
        self.tcp = tcp
        """Addresses of listeners of what is not HTTP."""

    async def ask(self, *parts: bytes) -> bytes:
        """Send these, and give what comes until nothing is under way."""
        reader, writer = await asyncio.open_connection(*self.address)
        got: list[bytes] = []

        async def read() -> None:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    got.append(data)

        reading = asyncio.ensure_future(read())
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.01)
        quiet = 0
        while quiet < 10 and not reading.done():  # so long that a thread may have been slow
            before = len(got)
            await asyncio.sleep(0.005)
            counts = await self.application.snapshot()
            quiet = 0 if counts["ours"]["in_progress"] or len(got) > before else quiet + 1
        reading.cancel()
        writer.transport.abort()
        return b"".join(got)


@asynccontextmanager
async def serving(settings: dict[str, Any], sock: socket.socket | None = None) -> AsyncIterator[Served]:
    """Serve as a configuration says, on ports that the system chooses."""
    source = Source(None, {"access_log": {"format": "off"}, **settings})
    loaded = source.load()
    with contextlib.ExitStack() as stack:
        http = [stack.enter_context(sock or listening())] if loaded.serves_http else []
        tcp = [stack.enter_context(listening()) for _ in loaded.tcp]
        application = Application(source, loaded, [*http, *tcp])
        addresses = [each.getsockname()[:2] for each in (*http, *tcp)]
        await application.start()
        try:
            yield Served(application, addresses[0], addresses[len(http) :])
        finally:
            await application.close()
            await application.stop()


class Beside:
    """The same in a thread of its own, for clients that block."""

    def __init__(self, loop: asyncio.AbstractEventLoop, served: Served) -> None:
        self._loop = loop
        self._application = served.application
        self._address = served.address
        self._tcp = served.tcp
        self.port = served.address[1]

    def connect(self, tcp: int | None = None) -> Client:
        """To the listener of HTTP, or of something else."""
        return Client(self._address if tcp is None else self._tcp[tcp])

    def reload(self) -> str:
        return asyncio.run_coroutine_threadsafe(self._application.reload(), self._loop).result(20)

    def told(self, *parts: bytes) -> bytes:
        """Send these, and give all that comes until the connection is closed."""
        with self.connect() as client:
            with contextlib.suppress(ConnectionError):  # what is refused need not be read to its end
                for part in parts:
                    client.send(part)
            return client.rest()

    def answer(self, *parts: bytes) -> Answer:
        """Send these, and give the whole response. Raises as `Client.answer`."""
        with self.connect() as client:
            for part in parts:
                client.send(part)
            return client.answer(parts[0].partition(b" ")[0].decode())

    def requests(self) -> dict[str, int]:
        """How many were answered, by status."""
        return self.counted("requests")

    def counted(self, what: str) -> dict[str, int]:
        """Numbers by their labels, which are joined."""
        counted = asyncio.run_coroutine_threadsafe(self._application.snapshot(), self._loop).result(20)
        return {key.replace(SEPARATOR, " "): value for key, value in counted["ours"][what].items()}


class Client:
    """One connection, on which many responses may have come: `HTTPResponse` would throw away what it has read."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, 20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end(self) -> None:
        """Send nothing more; an error of the connection if the server has left."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            raise ConnectionAbortedError from error

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def abort(self) -> None:
        """Reset the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self._socket.close()

    def rest(self) -> bytes:
        """All that comes until the connection is closed."""
        return self._file.read()

    def answer(self, method: str = "GET") -> Answer:
        """The next response. Raises: http.client.HTTPException, ConnectionError, if it breaks off."""
        response = HTTPResponse(_Kept(self._file), method=method)  # type: ignore[arg-type]
        response.begin()
        return Answer(response)


class _Kept:
    """A socket of which only the file is read, and that stays open."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def makefile(self, mode: str) -> _Kept:
        return self

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Answer:
    """A response: status, headers and body."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()


@contextmanager
def beside(settings: dict[str, Any], sock: socket.socket | None = None) -> Iterator[Beside]:
    """Serve as a configuration says, in a thread."""
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        context = serving(settings, sock)
        served = loop.run_until_complete(context.__aenter__())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield Beside(loop, served)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(context.__aexit__(None, None, None))

"""Bytes of memory that a middleware needs, beside its guests, for a body of 50 MiB that two filters hold and rewrite.

It comes in parts, or as `whole`: then the server has it in memory once more, as long as the call lasts.

    python -m tests.integrations.held_memory asgi|wsgi ENGINE [whole]
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import anyio

from proxywasm_host.integrations import asgi, wsgi
from tests.support import FILTERS

MIB = 1 << 20
SIZE = 50 * MIB
LIMIT = 64 * MIB
PART = SIZE if "whole" in sys.argv else 64 * 1024
CHAIN = [asgi.Filter(str(FILTERS / "rust/body.wasm"), vm_id=each) for each in ("one", "two")]


def status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) << 10


class Peak:
    """What the process grows by, at most, without what its guests grow by."""

    def __init__(self, guests: int) -> None:
        self.guests = guests
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self.before = status("VmRSS")

    def bytes(self, guests: int) -> int:
        return status("VmHWM") - self.before - (guests - self.guests)


async def through_asgi(engine: str) -> int:
    left, got = SIZE, 0

    async def application(scope, receive, send) -> None:
        nonlocal got
        more = True
        while more:
            message = await receive()
            got, more = got + len(message["body"]), message["more_body"]
            assert not message["body"].strip(b"X")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        nonlocal left
        left -= PART
        return {"type": "http.request", "body": b"x" * PART, "more_body": left > 0}

    async def send(message) -> None:
        pass

    middleware = asgi.ProxyWasmMiddleware(application, CHAIN, engine=engine, buffer_limit=LIMIT)

    def guests() -> int:
        return sum(plugin._vm.memory_bytes for worker in middleware._workers.values() for plugin in worker.plugins)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/", "query_string": b""}
    scope |= {"headers": [(b"host", b"a"), (b"content-length", b"%d" % SIZE)]}

    async def none():
        return {"type": "http.request", "body": b"", "more_body": False}

    await middleware({**scope, "method": "GET", "headers": []}, none, send)
    peak, got = Peak(guests()), 0
    await middleware(scope, receive, send)
    assert got == SIZE
    used = peak.bytes(guests())
    await middleware._stop()
    return used


class Input:
    left = SIZE

    def read(self, size: int) -> bytes:
        size = min(size, PART, self.left)
        self.left -= size
        return b"x" * size


def through_wsgi(engine: str) -> int:
    got = 0

    def application(environ, start_response):
        nonlocal got
        while part := environ["wsgi.input"].read(PART):
            got += len(part)
            assert not part.strip(b"X")
        start_response("204 No Content", [])
        return []

    middleware = wsgi.ProxyWasmMiddleware(application, CHAIN, engine=engine, buffer_limit=LIMIT)

    def guests() -> int:
        return sum(plugin._vm.memory_bytes for plugin in middleware._running[1])

    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": "", "HTTP_HOST": "a"}
    environ |= {"SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "a", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    list(middleware({**environ, "wsgi.input": Input()}, lambda *_: None))
    peak = Peak(guests())
    posted = {**environ, "REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(SIZE), "wsgi.input": Input()}
    list(middleware(posted, lambda *_: None))
    assert got == SIZE
    used = peak.bytes(guests())
    middleware.close()
    return used


def main(carrier: str, engine: str, _: str = "") -> None:
    logging.disable()
    print(anyio.run(through_asgi, engine) if carrier == "asgi" else through_wsgi(engine))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One application behind each of the two middlewares: what it saw, and what its client got, in the same words."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread

from proxywasm_host.integrations import asgi, wsgi
from tests.integrations import asgi as of_asgi
from tests.integrations import test_wsgi as of_wsgi

MIDDLEWARES = {"asgi": asgi.ProxyWasmMiddleware, "wsgi": wsgi.ProxyWasmMiddleware}


@dataclass
class Seen:
    """A request as the application sees it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """A response as the client gets it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        """The value of a header, several joined with a comma."""
        return ",".join(value for each, value in self.headers if each == name) or None


@dataclass
class Application:
    """Answers every request so, and notes it."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=lambda: [("content-length", "6")])
    chunks: tuple[bytes, ...] = (b"Hello.",)
    echo: bool = False
    """The body is the request's."""
    error: Exception | None = None
    """It fails when it has read the request."""
    seen: list[Seen] = field(default_factory=list)

    def answer(self, seen: Seen) -> tuple[bytes, ...]:
        """The parts of the body, now that the request was read."""
        self.seen.append(seen)
        if self.error is not None:
            raise self.error
        return (seen.body,) if self.echo else self.chunks

    async def asgi(self, scope, receive, send) -> None:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            text = value.decode("latin-1")
            headers[name.decode()] = f"{headers[name.decode()]},{text}" if name.decode() in headers else text
        body = await of_asgi.read(receive)
        chunks = self.answer(Seen(scope["method"], scope["path"], scope["query_string"].decode(), headers, body))
        given = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        await of_asgi.respond(send, self.status, given, *chunks)

    def wsgi(self, environ, start_response):
        headers = {name[5:].lower().replace("_", "-"): environ[name] for name in environ if name[:5] == "HTTP_"}
        headers |= {"content-length": environ["CONTENT_LENGTH"]} if environ.get("CONTENT_LENGTH") else {}
        path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
        body = environ["wsgi.input"].read()
        chunks = self.answer(Seen(environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], headers, body))
        start_response(f"{self.status:03d} Fine", [*self.headers])
        return list(chunks)


class Both:
    """An application behind filters, as `kind` has it. `status` is the middleware's after what was asked last, and `client`
    has what the last client got so far."""

    client: of_asgi.Server | of_wsgi.Response | None = None

    def __init__(self, kind: str, filters, application: Application | None = None, **options: Any) -> None:
        self.kind = kind
        self.application = application or Application()
        self.until: Callable[[Callable], object] = lambda _: None
        """Called with `status` after what was asked last, while the middleware still runs."""
        self.app = MIDDLEWARES[kind](getattr(self.application, kind), filters, **options)

    def ask(self, *requests: dict[str, str]) -> list[int]:
        """The statuses that requests with these headers get, one after the other."""
        return [answer.status for answer in self.answers(*[{"headers": headers.items()} for headers in requests])]

    def get(self, method: str = "GET", target: str = "/", headers=(), body: bytes = b"", **more: Any) -> Answer:
        """What one request gets."""
        return self.answers({"method": method, "target": target, "headers": headers, "body": body, **more})[0]

    def answers(self, *requests: dict[str, Any]) -> list[Answer]:
        """What requests get, one after the other."""
        return anyio.run(self._asgi, requests) if self.kind == "asgi" else self._wsgi(requests)

    async def _asgi(self, requests) -> list[Answer]:
        answers = []
        for request in requests:
            given = {"method": "GET", "target": "/", "headers": (), "body": b"", **request}
            pairs = [(name, value) for name, value in given.pop("headers")]
            body, method, target = given.pop("body"), given.pop("method"), given.pop("target")
            if body and not any(name in ("content-length", "transfer-encoding") for name, _ in pairs):
                pairs.append(("content-length", str(len(body))))
            parts = [body[at : at + 65536] for at in range(0, len(body), 65536)]
            self.client = server = of_asgi.Server(parts)
            await self.app(of_asgi.scope(method, target, pairs, **given), server.receive, server.send)
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in server.headers]
            answers.append(Answer(server.status or 0, headers, server.body))
        await anyio.to_thread.run_sync(self.until, self.app.status)
        self.status = await anyio.to_thread.run_sync(self.app.status)
        return answers

    def _wsgi(self, requests) -> list[Answer]:
        answers = []
        for request in requests:
            given = {"method": "GET", "target": "/", "headers": (), "body": b"", **request}
            path, _, query = given["target"].partition("?")
            environ: dict[str, Any] = {"RAW_URI": given["target"], "QUERY_STRING": query}
            environ |= {"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "4711"}
            environ["SERVER_PROTOCOL"] = f"HTTP/{given.get('http_version', '1.1')}"
            for name, value in given["headers"]:
                key = f"HTTP_{name.upper().replace('-', '_')}"
                environ[key] = f"{environ[key]},{value}" if key in environ else value
            environ.setdefault("HTTP_HOST", "example.com")
            if length := environ.pop("HTTP_CONTENT_LENGTH", None):
                environ.update({"CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(given["body"])})
            self.client = response = of_wsgi.Response()
            of_wsgi.get(self.app, given["method"], path, given["body"], response, **environ)
            pairs = [(name.lower(), value) for name, value in response.headers]
            answers.append(Answer(int(response.status[:3]), pairs, response.body))
        with ThreadPoolExecutor(1) as other:
            other.submit(self.until, self.app.status).result()
            self.status = other.submit(self.app.status).result()
        return answers

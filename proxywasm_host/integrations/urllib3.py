"""Filters on the calls that a program makes with urllib3.

All calls of this manager pass the filters:

    http = ProxyWasmPoolManager(urllib3.PoolManager(), ["auth.wasm"])
    http.request("GET", "https://api.example/")
"""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from http.client import HTTPMessage, responses
from typing import Any

from proxywasm_host import remedy

try:
    import urllib3
except ModuleNotFoundError as error:
    raise remedy.missing("requests", error) from None

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import AnyFilter, Filter
from proxywasm_host.integrations.calls import Call
from proxywasm_host.integrations.exchange import RequestHead, ResponseHead, StreamReset
from proxywasm_host.integrations.headers import address
from proxywasm_host.integrations.outgoing import OUTGOING, Answer, Outgoing, framed
from proxywasm_host.integrations.threads import ThreadCarrier
from proxywasm_host.integrations.wsgi.environ import text_of

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmPoolManager"]

CHUNK = 65536
USER_AGENT = f"python-urllib3/{urllib3.__version__}"  # type: ignore[attr-defined]


class ProxyWasmPoolManager(ThreadCarrier):
    """A ``urllib3.PoolManager`` that passes requests and responses through filters.

    Args: the manager that sends, then those of `Carrier`. `properties` may be a function of the request (`Outgoing`);
        `clients` are those of `ThreadDriver`.

    Filters load with the first request. Raises: the errors of the manager, and urllib3's ProtocolError for a response
    that filters break off.
    """

    logger = logging.getLogger("proxywasm_host.urllib3")
    behind = (
        lambda app: isinstance(app, urllib3.PoolManager),
        "the manager that sends: ProxyWasmPoolManager(urllib3.PoolManager(), ['auth.wasm'])",
    )

    def __init__(self, app: urllib3.PoolManager, filters: Iterable[AnyFilter], **options: Any) -> None:
        super().__init__(app, filters, **options)
        manager = copy.copy(app)  # shares its pools, follows redirects, and calls `_pool` for each request
        manager.connection_from_host = self._pool  # type: ignore[method-assign]
        self._manager = manager

    def request(self, method: str, url: str, *args: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """Send a request through the filters. The arguments are those of the manager."""
        return self._manager.request(method, url, *args, **options)

    def urlopen(self, method: str, url: str, *args: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """Send a request through the filters. The arguments are those of the manager."""
        return self._manager.urlopen(method, url, *args, **options)

    def close(self) -> None:
        """End the filters and close idle connections."""
        super().close()
        self.app.clear()

    def __enter__(self) -> ProxyWasmPoolManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pool(self, *args: Any, **options: Any) -> Any:
        return Pool(self, self.app.connection_from_host(*args, **options))

    def _send(
        self, pool: Any, method: str, url: str, body: Any, headers: Mapping[str, str], options: dict[str, Any]
    ) -> urllib3.HTTPResponse:
        request = outgoing(pool, method, url, body, headers, chunked=options.pop("chunked", False))
        options.pop("body_pos", None)
        as_wanted = {name: options.pop(name, True) for name in ("preload_content", "decode_content")}
        driver, stream = self._stream({**OUTGOING, **self._properties_of(request)}, request.addressed)
        asked: list[urllib3.HTTPResponse] = []

        def ask(head: RequestHead, parts: Iterator[bytes] | None) -> Answer:
            start = url[: -len(urllib3.util.parse_url(url).request_uri)] if "://" in url else ""
            given = urllib3.HTTPHeaderDict(text_of(framed(head)))
            target = start + head.path.decode("latin-1")
            method = head.method.decode("ascii")
            response = pool.urlopen(
                method, target, parts, given, preload_content=False, decode_content=False, **options
            )
            asked.append(response)
            return answer_of(response, response.close)

        call = Call(driver, stream, ask, fix_content_length=self._fix_content_length)
        try:
            head, parts = call.run(request, parts_of(body))
            retries = asked[0].retries if asked else options.get("retries")
            known = {"retries": retries if isinstance(retries, urllib3.Retry) else None, "request_url": url}
            return received(head, parts, method, **known, **as_wanted)
        except StreamReset as error:
            raise urllib3.exceptions.ProtocolError(str(error)) from None


class Pool:
    """A pool of connections to one server, with filters in front of it."""

    def __init__(self, manager: ProxyWasmPoolManager, pool: Any) -> None:
        self._manager = manager
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def urlopen(
        self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any
    ) -> urllib3.HTTPResponse:
        """Send a request of the manager, or one that follows a redirect."""
        given = self._pool.headers if headers is None else headers
        return self._manager._send(self._pool, method, url, body, given, options)


def outgoing(pool: Any, method: str, url: str, body: Any, headers: Mapping[str, str], *, chunked: bool) -> Outgoing:
    """A request of urllib3, as `Outgoing`, with the headers that urllib3 would add."""
    given = [(encoded(name), encoded(value)) for name, value in urllib3.HTTPHeaderDict(headers).iteritems()]
    names = {name.lower() for name, _ in given}
    if b"host" not in names:
        default = {"http": 80, "https": 443}[pool.scheme]
        host = pool.host if pool.port in (None, default) else address((pool.host.strip("[]"), pool.port))
        given.insert(0, (b"host", host.encode()))
    if b"user-agent" not in names:
        given.append((b"user-agent", USER_AGENT.encode()))
    if isinstance(body, (str, bytes)) and not chunked and not names & {b"content-length", b"transfer-encoding"}:
        length = len(body.encode() if isinstance(body, str) else body)
        given.append((b"content-length", b"%d" % length))
    target = urllib3.util.parse_url(url).request_uri if "://" in url else url
    return Outgoing(method.encode(), target.encode(), pool.scheme.encode(), given)


def encoded(text: str | bytes) -> bytes:
    """A header's name or value as bytes; programs use either type."""
    return text if isinstance(text, bytes) else text.encode("latin-1")


def parts_of(body: Any) -> Iterable[bytes] | None:
    """The parts of a body, which may be bytes, text, a file, or parts; ``None`` without a body."""
    if not body:
        return None
    if isinstance(body, (str, bytes)):
        return (body.encode() if isinstance(body, str) else body,)
    read = getattr(body, "read", None)
    parts: Iterable[Any] = body if read is None else iter(lambda: read(CHUNK), type(read(0))())
    return (part.encode() if isinstance(part, str) else part for part in parts)


def answer_of(response: Any, close: Any) -> Answer:
    """An unread response of urllib3, as `Answer`."""
    headers = [(encoded(name), encoded(value)) for name, value in response.headers.items()]
    parts = iter(lambda: response.read1(CHUNK, decode_content=False), b"")  # does not wait for a whole chunk
    return Answer(response.status, headers, parts, close)


def received(
    head: ResponseHead, parts: Generator[bytes, None, None], method: str | None, **known: Any
) -> urllib3.HTTPResponse:
    """A response out of the filters, as an object of urllib3."""
    return urllib3.HTTPResponse(
        Reader(parts),
        urllib3.HTTPHeaderDict(text_of(head.headers)),
        head.status,
        reason=responses.get(head.status),
        original_response=Original(head),  # type: ignore[arg-type]
        request_method=method,
        **known,
    )


class Reader(io.RawIOBase):
    """The body of a response, as a file."""

    def __init__(self, parts: Generator[bytes, None, None]) -> None:
        super().__init__()
        self._parts = parts
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            try:
                self._rest = next(self._parts, b"")
            except StreamReset as error:
                raise urllib3.exceptions.ProtocolError(str(error)) from None
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._parts.close()
        super().close()


class Original:
    """Stands in for the response of `http.client`, in which requests looks for cookies."""

    def __init__(self, head: ResponseHead) -> None:
        self.msg = HTTPMessage()
        for name, value in text_of(head.headers):
            self.msg[name] = value

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: nothing is open."""

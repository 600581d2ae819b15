"""Filters on the calls that a program makes with requests.

session = requests.Session()
session.mount("https://api.example", ProxyWasmAdapter(requests.adapters.HTTPAdapter(), ["auth.wasm"]))
"""

from __future__ import annotations

import io
import logging
from collections.abc import Generator, Iterable, Iterator
from http.client import HTTPMessage, responses
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from proxywasm_host import remedy

try:
    import requests
    import urllib3
except ModuleNotFoundError as error:
    raise remedy.missing("requests", error) from None

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.integrations.calls import OUTGOING, Answer, Call, Outgoing, framed
from proxywasm_host.integrations.exchange import RequestHead, ResponseHead, StreamReset
from proxywasm_host.integrations.threads import ThreadCarrier
from proxywasm_host.integrations.wsgi.environ import text_of

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmAdapter"]

CHUNK = 65536


class ProxyWasmAdapter(ThreadCarrier, requests.adapters.BaseAdapter):
    """An adapter that gives requests and responses to filters.

    Args: the adapter that sends, then those of `Carrier`; `properties` may be a function of the request, `clients` are
        those of `ThreadDriver`.

    Filters load with the first request. Raises: beside what the adapter raises, requests' ChunkedEncodingError for a
    response that filters break off.
    """

    logger = logging.getLogger("proxywasm_host.requests")
    behind = (
        lambda app: isinstance(app, requests.adapters.BaseAdapter),
        "the adapter that sends: ProxyWasmAdapter(requests.adapters.HTTPAdapter(), ['auth.wasm'])",
    )

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request through the filters. The other arguments are the adapter's."""
        known = {**OUTGOING, **self._properties_of(request)}
        driver, stream = self._stream(known, lambda: outgoing(request).addressed())

        def ask(head: RequestHead, body: Iterator[bytes] | None) -> Answer:
            response = self.app.send(sent(request, head, body), *args, **{**options, "stream": True})
            headers = [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.raw.headers.items()
            ]
            parts = iter(lambda: response.raw.read1(CHUNK, decode_content=False), b"")  # what is there, and no more
            return Answer(response.status_code, headers, parts, response.close)

        call = Call(driver, stream, ask, fix_content_length=self._fix_content_length)
        try:
            head, parts = call.run(outgoing(request), body_of(request))
        except StreamReset as error:
            raise requests.exceptions.ConnectionError(str(error), request=request) from None
        response = BUILDER.build_response(request, received(request, head, parts))
        response.connection = self  # type: ignore[assignment]
        return response

    def close(self) -> None:
        """End the filters and close the adapter."""
        super().close()
        self.app.close()


BUILDER = requests.adapters.HTTPAdapter()
"""Makes responses as requests has them."""


def outgoing(request: requests.PreparedRequest) -> Outgoing:
    """A request as it goes out."""
    parts = urlsplit(request.url or "")
    headers = [(encoded(name), encoded(value)) for name, value in request.headers.items()]
    if "Host" not in request.headers:
        headers.insert(0, (b"host", parts.netloc.rpartition("@")[2].encode()))
    return Outgoing((request.method or "GET").encode(), request.path_url.encode(), parts.scheme.encode(), headers)


def encoded(text: str | bytes) -> bytes:
    """Names and values of headers, which programs give as either."""
    return text if isinstance(text, bytes) else text.encode("latin-1")


def body_of(request: requests.PreparedRequest) -> Iterable[bytes] | None:
    """The parts of a body, if there is one."""
    body: Any = request.body
    if not body:
        return None
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, bytes):
        return (body,)
    read = getattr(body, "read", None)
    parts: Iterable[Any] = body if read is None else iter(lambda: read(CHUNK), type(read(0))())
    return (part.encode() if isinstance(part, str) else part for part in parts)


def sent(
    request: requests.PreparedRequest, head: RequestHead, body: Iterator[bytes] | None
) -> requests.PreparedRequest:
    """The request for the adapter: it goes where the program sends it, whatever filters make of the host."""
    made = request.copy()
    scheme, netloc, *_ = urlsplit(request.url or "")
    path, _, query = head.path.decode("latin-1").partition("?")
    made.url = urlunsplit((scheme, netloc, path, query, ""))
    made.method = head.method.decode("ascii")
    made.headers.clear()
    for name, value in text_of(framed(head)):
        made.headers[name] = f"{made.headers[name]}, {value}" if name in made.headers else value
    made.body = body  # type: ignore[assignment]
    return made


def received(
    request: requests.PreparedRequest, head: ResponseHead, parts: Generator[bytes, None, None]
) -> urllib3.HTTPResponse:
    """A response as urllib3 has it."""
    headers = urllib3.HTTPHeaderDict(text_of(head.headers))
    return urllib3.HTTPResponse(
        Reader(parts),
        headers,
        head.status,
        reason=responses.get(head.status),
        preload_content=False,
        decode_content=False,
        original_response=Original(head),  # type: ignore[arg-type]
        request_method=request.method,
    )


class Reader(io.RawIOBase):
    """A body to read from."""

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
    """Where requests looks for cookies."""

    def __init__(self, head: ResponseHead) -> None:
        self.msg = HTTPMessage()
        for name, value in text_of(head.headers):
            self.msg[name] = value

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""

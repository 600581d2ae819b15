"""Carries one exchange between mitmproxy's flow and itself: what came is in the flow, and what comes out is put there.

A body is whole when filters see it, or passes part by part (`stream_request`, `stream_response`). mitmproxy waits for
nothing while it streams, so a body is streamed only where its head has come out at once; a filter that holds a part
until something else happens (a callout, a tick) lets it go with the next part, and if it still holds one at the end,
the flow is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from mitmproxy import flow as flows
from mitmproxy import http

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ResponseHead, State
from proxywasm_host.integrations.headers import address, addressed
from proxywasm_host.runtime.effects import RequestBody, ResponseBody
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Conversation", "addressed_by", "properties"]

FRAMING = (b"content-length", b"transfer-encoding")
logger = logging.getLogger("proxywasm_host.mitmproxy")


def properties(flow: flows.Flow) -> Mapping[str, PropertyValue]:
    """What a flow knows of its connections, under Envoy's names."""
    known: dict[str, PropertyValue] = {}
    peers = {"source": flow.client_conn.peername, "destination": flow.client_conn.sockname}
    for group, peer in (peers | {"upstream": flow.server_conn.peername or flow.server_conn.address}).items():
        if peer:
            known |= {f"{group}.address": address(peer), f"{group}.port": peer[1]}
    if flow.client_conn.tls_version:
        known["connection.tls_version"] = flow.client_conn.tls_version
    if isinstance(flow, http.HTTPFlow):
        known["request.protocol"] = flow.request.http_version.replace("HTTP/2.0", "HTTP/2")
    return known


def headers_of(request: http.Request) -> HeaderList:
    """The request's headers, with the Host that it names or is sent to."""
    headers = pairs(request.headers)
    if not any(name == b"host" for name, _ in headers):
        headers.insert(0, (b"host", request.data.authority or address((request.host, request.port)).encode()))
    return headers


def addressed_by(request: http.Request) -> tuple[bytes, bytes]:
    """Authority and path that filters will see."""
    return addressed(headers_of(request), request.data.method, request.data.path, request.data.scheme, b"")


def pairs(message: Any) -> HeaderList:
    """Headers, or trailers, as they came."""
    return [(name.lower(), value) for name, value in message.fields]


class Conversation:
    """A request in progress."""

    def __init__(self, flow: http.HTTPFlow, driver: AsyncDriver, stream: HttpStream) -> None:
        self._flow = flow
        self._change = anyio.Event()
        # Whole bodies are measured when they have come out, and streamed ones have no length that filters may change.
        self._exchange = Exchange(driver, stream, fix_content_length=False, wake=self._woken, log=logger)
        self._begun = self._closed = False
        self._streams = ""
        """What is streamed just now, request or response; empty if nothing is."""
        self._sent: set[str] = set()
        """What has been streamed."""
        self._asked: HeaderList = []

    def _woken(self) -> None:
        self._change.set()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self._change = anyio.Event()
            await self._change.wait()

    # -- The request ---------------------------------------------------------------------------------------------

    def _begin(self, end_stream: bool) -> None:
        request = self._flow.request
        headers = headers_of(request)
        if request.raw_content is not None:  # it is whole, however it was framed
            headers = [pair for pair in headers if pair[0] != b"transfer-encoding"]
        self._asked, self._begun = headers, True
        self._exchange.begin(request.data.method, request.data.path, request.data.scheme, headers, end_stream)

    def stream_request(self) -> None:
        """Let its head go, and then its body part by part, if filters let it."""
        self._begin(end_stream=False)
        if self._exchange.to_upstream and not self._exchange.over:
            self._put_request(self._exchange.request_head(), None)
            self._streams = "request"
            self._flow.request.stream = self._stream_request

    def _stream_request(self, data: bytes) -> list[bytes]:
        exchange, trailers = self._exchange, self._flow.request.trailers
        if data:
            exchange.request_body(data, False)
        elif trailers:
            exchange.request_trailers(pairs(trailers))
        else:
            exchange.request_body(b"", True)
        return self._streamed(exchange.to_upstream, end=not data)

    def _streamed(self, queue: Any, *, end: bool) -> list[bytes]:
        """What has come out of a body; the flow is killed if there is no way for it to go on."""
        parts, ended = [], False
        while queue:
            part = queue.popleft()
            if isinstance(part, (RequestBody, ResponseBody)):
                parts.append(part.data)
                ended = part.end_stream
            elif not isinstance(part, (RequestHead, ResponseHead)):
                message = self._flow.request if self._streams == "request" else self._flow.response
                message.trailers = http.Headers(part.trailers)
                ended = True
        if end:
            self._sent.add(self._streams)
            if not ended and not self._exchange.over:
                logger.warning("%s: a filter holds the end of a streamed %s", self._flow.request.url, self._streams)
            if not ended:
                self._flow.kill()
            self._streams = ""
        return parts or [b""]

    async def request(self) -> None:
        """Put the request that comes out into the flow, or the response that filters gave."""
        exchange, request = self._exchange, self._flow.request
        if "request" in self._sent:
            return
        data, trailers = request.raw_content or b"", request.trailers
        if not self._begun:
            self._begin(end_stream=not data and not trailers)
        if data:
            exchange.request_body(data, not trailers)
        if trailers:
            exchange.request_trailers(pairs(trailers))
        elif not data:
            exchange.request_body(b"", True)
        out: list[Any] = []

        def whole() -> bool:
            while exchange.to_upstream:
                out.append(exchange.to_upstream.popleft())
            return exchange.over or (bool(out) and getattr(out[-1], "end_stream", True))

        await self._until(whole)
        if exchange.over:
            await self._answer()
        else:
            self._put_request(out[0], b"".join(part.data for part in out if isinstance(part, RequestBody)))
            if hasattr(out[-1], "trailers"):
                request.trailers = http.Headers(out[-1].trailers)

    def _put_request(self, head: RequestHead, body: bytes | None) -> None:
        """`body` is ``None`` if it is streamed."""
        request = self._flow.request
        self._note("request", self._asked, head.headers)
        headers = self._framed(head.headers, body, had=bool(body) or head.at >= 0)
        if b"host" not in {name.lower() for name, _ in request.headers.fields}:  # HTTP/2 has none
            request.data.authority = headers.pop(0)[1]
        request.data.method, request.data.path, request.headers = head.method, head.path, http.Headers(headers)
        if body is not None:
            request.raw_content = body

    def _framed(self, headers: HeaderList, body: bytes | None, *, had: bool) -> HeaderList:
        """Headers with the length that a body has, or none if it is streamed and may change."""
        if body is None and not self._exchange.stream.changes_bodies:
            return list(headers)
        rest = [pair for pair in headers if pair[0] not in FRAMING]
        if body is not None:
            return [*rest, (b"content-length", b"%d" % len(body))] if had else rest
        http_1 = self._flow.request.http_version.startswith("HTTP/1")
        return [*rest, (b"transfer-encoding", b"chunked")] if http_1 else rest

    # -- The response --------------------------------------------------------------------------------------------

    def _respond(self) -> None:
        response = self._flow.response
        assert response is not None  # noqa: S101 - it came
        self._answered = pairs(response.headers)
        self._exchange.response(response.status_code, self._answered, trailers=True)

    def stream_response(self) -> None:
        """Let its head go, and then its body part by part, if filters let it."""
        exchange, response = self._exchange, self._flow.response
        if exchange.over or response is None or response.status_code == 101:
            return
        self._respond()
        self._begun_response = True
        if exchange.to_client and not exchange.local:
            head = exchange.to_client.popleft()
            assert isinstance(head, ResponseHead)  # noqa: S101 - it comes first
            self._put_response(head, None)
            if not head.end_stream:
                self._streams = "response"
                response.stream = self._stream_response

    _begun_response = False
    _answered: HeaderList = []  # noqa: RUF012 - never changed

    def _stream_response(self, data: bytes) -> list[bytes]:
        exchange, trailers = self._exchange, self._flow.response and self._flow.response.trailers
        if data:
            exchange.response_body(data, False)
        elif trailers:
            exchange.response_trailers(pairs(trailers))
        else:
            exchange.response_body(b"", True)
        return self._streamed(exchange.to_client, end=not data)

    async def response(self) -> None:
        """Put the response that comes out into the flow."""
        exchange, response = self._exchange, self._flow.response
        if self._closed or response is None:
            return
        if "response" in self._sent or response.status_code == 101:  # a WebSocket has passed as a request
            self._close(whole=True)
            return
        if not exchange.over:
            if not self._begun_response:
                self._respond()
            data, trailers = response.raw_content or b"", response.trailers
            if data:
                exchange.response_body(data, not trailers)
            if trailers:
                exchange.response_trailers(pairs(trailers))
            elif not data:
                exchange.response_body(b"", True)
        await self._answer()

    async def _answer(self) -> None:
        """Put the whole response that comes out into the flow."""
        exchange, flow = self._exchange, self._flow
        await self._until(lambda: exchange.state not in (State.WAITING, State.BEGUN))
        parts = [*exchange.to_client]
        head = next((part for part in parts if isinstance(part, ResponseHead)), None)
        if head is None:
            flow.kill()
        else:
            self._put_response(head, b"".join(part.data for part in parts if isinstance(part, ResponseBody)))
            if flow.response and hasattr(parts[-1], "trailers"):
                flow.response.trailers = http.Headers(parts[-1].trailers)
        self._close(whole=True)

    def _put_response(self, head: ResponseHead, body: bytes | None) -> None:
        """`body` is ``None`` if it is streamed."""
        flow = self._flow
        local = flow.response is None or self._exchange.local
        if flow.response is None or local:
            flow.response = http.Response.make(head.status)
        flow.response.status_code = head.status
        if local:
            self._say(f"answered {head.status} ({self._exchange.stream.details or 'by a filter'})")
        else:
            self._note("response", self._answered, head.headers)
        bodiless = flow.request.method == "HEAD" or head.status in (204, 304)
        headers = head.headers if bodiless else self._framed(head.headers, body, had=True)
        flow.response.headers = http.Headers(headers)
        if body is not None:
            flow.response.raw_content = body

    # -- The end -------------------------------------------------------------------------------------------------

    def broken_off(self) -> None:
        """The flow has ended otherwise."""
        if not self._closed:
            self._exchange.client_gone()
            self._close()

    def _close(self, *, whole: bool = False) -> None:
        self._closed = True
        self._exchange.close(whole=whole)

    # -- What filters did, for who looks at the flow -------------------------------------------------------------

    def _note(self, what: str, before: HeaderList, after: HeaderList) -> None:
        """The difference of headers."""
        ignored = (*FRAMING, b"connection", b"host")
        added = [pair for pair in after if pair not in before and pair[0] not in ignored]
        removed = [pair for pair in before if pair not in after and pair[0] not in ignored]
        for sign, changed in (("-", removed), ("+", added)):
            for name, value in changed:
                self._say(f"{what}: {sign}{name.decode('latin-1')}: {value.decode('latin-1')}")

    def _say(self, line: str) -> None:
        """Into the flow's comment, which mitmweb shows, and its metadata."""
        self._flow.metadata.setdefault("proxywasm", []).append(line)
        self._flow.comment = f"{self._flow.comment}\n{line}".strip()

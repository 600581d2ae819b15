"""Carries one exchange through a flow of mitmproxy: it reads messages from the flow, and writes the results back.

Filters get a body whole, or part by part (`stream_request`, `stream_response`). mitmproxy cannot wait while it streams,
so a body is streamed only if its head has come out at once. If a filter holds a part until another event (a callout's
reply, a tick), the part goes out with the next one; if it still holds a part at the end, the flow is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
from mitmproxy import http

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ResponseHead, State
from proxywasm_host.integrations.heads import NO_BODY
from proxywasm_host.integrations.mitmproxy.flow_data import (
    feed,
    framed,
    headers_of,
    may_have_body,
    pairs,
    say,
    say_difference,
    upgrade_of,
)
from proxywasm_host.runtime.effects import RequestBody, RequestTrailers, ResponseBody, ResponseTrailers
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Conversation"]

logger = logging.getLogger("proxywasm_host.mitmproxy")


class Conversation:
    """A request in progress."""

    def __init__(self, flow: http.HTTPFlow, driver: AsyncDriver, stream: HttpStream) -> None:
        self._flow = flow
        self._change = anyio.Event()
        # A whole body gets its length when it has come out; a streamed one that filters may change has none.
        self._exchange = Exchange(driver, stream, fix_content_length=False, wake=self._woken, log=logger)
        self._asked: HeaderList | None = None
        """The request's headers, once the filters have them."""
        self._answered: HeaderList | None = None
        self._early: dict[str, Any] = {}
        """Heads that are in the flow before their bodies have arrived. mitmproxy does not stream an empty body."""
        self._streamed: set[http.Message] = set()
        """Messages whose bodies have been streamed."""
        self._closed = False

    def _woken(self) -> None:
        self._change.set()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self._change = anyio.Event()
            await self._change.wait()

    # -- The request ---------------------------------------------------------------------------------------------

    def _begin(self, end_stream: bool) -> None:
        request = self._flow.request.data
        self._asked = headers_of(self._flow.request)
        self._exchange.begin(request.method, request.path, request.scheme, self._asked, end_stream)

    def stream_request(self) -> None:
        """Send the request's head, and then its body part by part, if filters release the head at once."""
        exchange, request = self._exchange, self._flow.request
        if not may_have_body(request):
            return
        self._begin(end_stream=False)
        if exchange.to_upstream and not exchange.over:
            head = self._early["request"] = exchange.request_head()
            self._put_request(head, None)

            def stream(data: bytes) -> list[bytes]:
                feed(request, exchange.request_body, exchange.request_trailers, data)
                return self._parts(exchange.to_upstream, request, end=not data)

            request.stream = stream

    async def request(self) -> None:
        """Put the request that comes out into the flow, or the filters' own response."""
        exchange, request = self._exchange, self._flow.request
        if request in self._streamed:
            return
        data = request.raw_content or b""
        if self._asked is None:
            self._begin(end_stream=not data and not request.trailers)
        feed(request, exchange.request_body, exchange.request_trailers, data)
        out: list[Any] = []

        def whole() -> bool:
            while exchange.to_upstream:
                out.append(exchange.to_upstream.popleft())
            return exchange.over or (bool(out) and getattr(out[-1], "end_stream", True))

        await self._until(whole)
        if exchange.over:
            await self._answer()
            return
        self._put_request(
            self._early.get("request") or out[0], b"".join(part.data for part in out if isinstance(part, RequestBody))
        )
        request.trailers = _trailers(out[-1])

    def _put_request(self, head: RequestHead, body: bytes | None) -> None:
        """Write a request into the flow. `body` is ``None`` if it is streamed."""
        request = self._flow.request
        self._say("request", self._asked or [], head, body)
        headers = self._framed(head.headers, body, had=bool(body) or head.at >= 0)
        if b"host" not in {name.lower() for name, _ in request.headers.fields}:  # HTTP/2 has none
            request.data.authority = headers.pop(0)[1]
        headers += upgrade_of(request)
        request.data.method, request.data.path, request.headers = head.method, head.path, http.Headers(headers)
        if body is not None:
            request.raw_content = body

    def _framed(self, headers: HeaderList, body: bytes | None, *, had: bool) -> HeaderList:
        if body is None and not self._exchange.stream.changes_bodies:
            return list(headers)
        return framed(headers, body, had=had, http_1=self._flow.request.http_version.startswith("HTTP/1"))

    # -- The response --------------------------------------------------------------------------------------------

    def _respond(self, response: http.Response) -> None:
        self._answered = pairs(response.headers)
        self._exchange.response(response.status_code, self._answered, trailers=True)

    def stream_response(self) -> None:
        """Send the response's head, and then its body part by part, if filters release the head at once."""
        exchange, response = self._exchange, self._flow.response
        if exchange.over or response is None or response.status_code == 101:
            return
        self._respond(response)
        if exchange.to_client and not exchange.local:
            head = self._early["response"] = exchange.to_client.popleft()
            assert isinstance(head, ResponseHead)  # noqa: S101 - it comes first
            self._put_response(head, None)

            def stream(data: bytes) -> list[bytes]:
                feed(response, exchange.response_body, exchange.response_trailers, data)
                return self._parts(exchange.to_client, response, end=not data)

            if not head.end_stream:
                response.stream = stream

    async def response(self) -> None:
        """Put the response that comes out into the flow."""
        exchange, response = self._exchange, self._flow.response
        if self._closed or response is None:
            return
        if response in self._streamed or response.status_code == 101:  # a WebSocket has passed as a request
            self._close(whole=True)
            return
        if not exchange.over:
            if self._answered is None:
                self._respond(response)
            feed(response, exchange.response_body, exchange.response_trailers, response.raw_content or b"")
        await self._answer()

    async def _answer(self) -> None:
        """Put the whole response that comes out into the flow."""
        exchange, flow = self._exchange, self._flow
        await self._until(lambda: exchange.state not in (State.WAITING, State.BEGUN))
        parts = [*exchange.to_client]
        head = next((part for part in parts if isinstance(part, ResponseHead)), self._early.get("response"))
        if head is None:
            flow.kill()
        else:
            response = self._put_response(head, b"".join(part.data for part in parts if isinstance(part, ResponseBody)))
            response.trailers = _trailers(parts[-1]) if parts else None
        self._close(whole=True)

    def _put_response(self, head: ResponseHead, body: bytes | None) -> http.Response:
        """Write a response into the flow. `body` is ``None`` if it is streamed."""
        flow, exchange = self._flow, self._exchange
        if flow.response is None or exchange.local:
            flow.response = http.Response.make(head.status)
            say(flow, f"answered {head.status} ({exchange.stream.details or 'by a filter'})")
        else:
            self._say("response", self._answered or [], head, body)
        flow.response.status_code = head.status
        bodiless = flow.request.method == "HEAD" or head.status in NO_BODY
        flow.response.headers = http.Headers(head.headers if bodiless else self._framed(head.headers, body, had=True))
        if body is not None:
            flow.response.raw_content = body
        return flow.response

    # -- Either --------------------------------------------------------------------------------------------------

    def _say(self, what: str, came: HeaderList, head: RequestHead | ResponseHead, body: bytes | None) -> None:
        """Note the filters' changes of a head, once."""
        if body is None or self._early.get(what) is not head:
            say_difference(self._flow, what, came, head.headers)

    def _parts(self, queue: Any, message: http.Message, *, end: bool) -> list[bytes]:
        """The parts of a body that have come out; the flow is killed if it cannot continue."""
        parts, ended = [], False
        while queue:
            part = queue.popleft()
            if isinstance(part, (RequestBody, ResponseBody)):
                parts.append(part.data)
                ended = part.end_stream
            elif isinstance(part, (RequestTrailers, ResponseTrailers)):
                message.trailers = _trailers(part)
                ended = True
        if end:
            self._streamed.add(message)
            if not ended:
                if not self._exchange.over:
                    logger.warning("%s: a filter holds the end of the streamed body", self._flow.request.url)
                self._flow.kill()
        return [part for part in parts if part]  # an empty one would be the end of a chunked body

    def broken_off(self) -> None:
        """End the exchange of a flow that broke off."""
        if not self._closed:
            self._exchange.client_gone()
            self._close()

    def _close(self, *, whole: bool = False) -> None:
        self._closed = True
        self._exchange.close(whole=whole)


def _trailers(part: Any) -> http.Headers | None:
    return http.Headers(part.trailers) if isinstance(part, (RequestTrailers, ResponseTrailers)) else None

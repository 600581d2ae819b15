"""One request of an ASGI server on its way through a stream to the application, and its response back.

Rules of this module:

* What the server's ``receive`` and the application's ``send`` bring is fed to the stream; what comes out of it waits in
  one of two queues, to the application and to the client. Usually each is emptied by who fed the stream, and no task is
  made. Only while a filter holds something, and with it the initiative, the server's next message is awaited beside.
* One ``receive`` and one ``send`` of the server at a time.
* The application is called when the request's headers have come out. Once the client is answered without it, or gone,
  it is told ``http.disconnect``; what it sends is dropped, and a body that goes on raises `ResponseOver`. If what it
  has sent is to be cut while it waits for something else, it is cancelled.
* Back-pressure: the next part of a body is read only when what came out before is taken, and while filters hold no
  more than their limit.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import anyio

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.driver.interrupt import Interruptible
from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.asgi.scope import (
    Message,
    Receive,
    Scope,
    Send,
    has_body,
    upstream_scope,
)
from proxywasm_host.integrations.framing import Framing, Part, framing_of
from proxywasm_host.integrations.headers import Refused, for_wire, sendable
from proxywasm_host.integrations.heads import NO_BODY, UNSENDABLE, oddities, request_head, response_head
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.filter_chain import REQUEST
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Exchange", "ResponseOver", "StreamReset", "refuse"]

FRAMING = (b"keep-alive", b"transfer-encoding")
TRAILERS = "http.response.trailers"
GONE = "downstream_remote_disconnect"
logger = logging.getLogger("proxywasm_host.asgi")


class ResponseOver(OSError):
    """The application sends a body, but the client has been answered otherwise, or is gone."""


class StreamReset(Exception):
    """A filter broke the stream off when a part of the response was sent: the server must cut the connection."""


async def refuse(send: Send, refused: Refused) -> None:
    """Answer a request that no filter may be shown."""
    await send({"type": "http.response.start", "status": refused.status, "headers": refused.headers})
    await send({"type": "http.response.body", "body": refused.body, "more_body": False})


class Exchange:
    """A request in progress. Made for each by the middleware; `headers` are those for the first filter."""

    def __init__(
        self,
        worker: Worker,
        stream: HttpStream,
        scope: Scope,
        headers: HeaderList,
        receive: Receive,
        send: Send,
        *,
        fix_content_length: bool,
    ) -> None:
        self._driver = worker.driver
        self._stream = stream
        self._scope = scope
        self._request = headers
        self._server_receive = receive
        self._server_send = send
        self._to_app: deque[Message] = deque()
        self._to_client: deque[Message] = deque()
        self._app_scope: Scope | None = None
        self._request_framing: Framing | None = None
        self._response_framing: Framing | None = None
        self._fix_content_length = fix_content_length
        self._response: HeaderList = []
        """The response's headers as the application sent them."""

        self._request_ended = False
        """The end of the request has been fed."""
        self._response_ended = False
        """The end of the response has been fed."""
        self._trailers: list[tuple[bytes, bytes]] | None = None
        """Trailers that the application announced, as far as they came."""
        self._trailers_announced = False
        self._started = False
        """The response's start was sent to the client."""
        self._answered = False
        """The response's end was put to the client."""
        self._gone = False
        self._reset = False
        self._reading = False
        self._sending = False
        self._feeding = False
        self._reader: anyio.CancelScope | None = None
        self._change: anyio.Event | None = None
        self._error: Exception | None = None
        self._running: Interruptible | None = None
        """The application."""
        self._awaiting: Interruptible | None = None
        """The server's next message."""

    # -- The whole -----------------------------------------------------------------------------------------------

    async def run(self, app: Callable[..., Awaitable[None]]) -> None:
        """From the request's headers to the end of the stream. Raises what the application raises, and StreamReset."""
        driver, stream = self._driver, self._stream
        driver.attach(stream, self._sink)
        try:
            await self._begin()
            while self._app_scope is None and not self._finished:
                if self._over or self._reading or stream.chain(REQUEST).stopped:
                    await self._step()
                else:  # only the framing waits
                    await self._read()
            if self._app_scope is not None and not self._over:
                await self._call(app)
            while not self._finished and (self._response_ended or self._over):
                await self._step()
            if self._error is not None:
                raise self._error
            if self._reset and not self._answered:
                raise StreamReset(stream.reset_details)
        finally:
            if self._reader is not None:
                self._reader.cancel()
            driver.detach(stream)
            whole = self._answered or stream.reset_details
            driver.perform(stream.close("" if whole else GONE))

    async def _begin(self) -> None:
        first = None
        body = has_body(self._scope)
        if body is None:
            first = await self._server_receive()
            body = bool(first["type"] != "http.request" or first.get("body") or first.get("more_body"))
        self._request_ended = not body
        self._feed(self._stream.request_headers(self._request, not body))
        if first is not None and body:
            self._take(first)

    async def _call(self, app: Callable[..., Awaitable[None]]) -> None:
        try:
            with self._driver.interruptible() as self._running:
                await app(self._app_scope, self.receive, self.send)
        except Exception as error:
            if not self._over:
                raise
            if not isinstance(error, ResponseOver):
                logger.info("the application, told that its client is gone, raised %r", error)
        finally:
            self._running = None

    @property
    def _closed(self) -> bool:
        """Whether all that the client gets has come out."""
        return self._gone or self._reset or self._answered

    @property
    def _over(self) -> bool:
        """Whether the application has nothing more to say."""
        return self._closed or self._stream.local is not None

    @property
    def _finished(self) -> bool:
        """Whether the client has got all that it will get."""
        if self._gone or self._error is not None:
            return True
        return (self._answered or self._reset) and not self._to_client and not self._sending

    async def _step(self) -> None:
        """Do one thing that may help, and come back when something has changed."""
        if self._to_client and not self._sending:
            await self._flush()
            return
        self._read_beside()
        await self._wait()

    async def _wait(self) -> None:
        if self._change is None:
            self._change = anyio.Event()
        await self._change.wait()

    def _changed(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    # -- In from the server --------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take the server's next message."""
        self._reading = True
        message: Message | None = None
        try:
            with self._driver.interruptible() as self._awaiting:
                message = await self._server_receive()
        finally:
            self._reading, self._awaiting = False, None
        if message is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            if not self._answered:
                self._gone = True
                self._feed(self._stream.close(GONE))
        elif not self._request_ended:
            more = message.get("more_body", False)
            data = message.get("body", b"")
            self._request_ended = not more
            if data or not more:
                self._feed(self._stream.request_body(bytes(data), not more))
        self._changed()

    def _read_beside(self) -> None:
        """Await the server's next message in a task, for other things may happen first."""
        ahead = not self._request_ended and (self._to_app or self._stream.request_full)
        if not (self._reading or self._closed or ahead):
            self._reading = True
            self._reader = anyio.CancelScope()
            self._driver.start_soon(self._reader_task, self._reader)

    async def _reader_task(self, scope: anyio.CancelScope) -> None:
        request = self._stream.chain(REQUEST)
        with scope:
            try:
                while True:
                    await self._read()
                    await self._flush()
                    if self._closed or not request.stopped or self._to_app or self._stream.request_full:
                        break  # what comes next is for others to read, or to ask for
                    self._reading = True
            except Exception as error:  # noqa: BLE001 - it is raised where the exchange runs
                self._error = error
        self._reading = False
        self._reader = None
        self._changed()

    # -- The application's side ----------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The application's ``receive``."""
        while True:
            if self._over:
                if self._gone or not self._sending:
                    return {"type": "http.disconnect"}
                await self._wait()  # who is told so too early may cancel the task that sends the end
            elif self._to_app:
                message = self._to_app.popleft()
                self._changed()
                return message
            elif self._reading or self._stream.request_full or self._stream.chain(REQUEST).stopped:
                self._read_beside()
                await self._wait()
            else:
                await self._read()
                await self._flush()

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        kind = message["type"]
        if self._over:
            if kind == "http.response.body" and message.get("more_body", False):
                raise ResponseOver(self._stream.details or GONE)
        elif kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.body":
            self._body(bytes(message.get("body", b"")), message.get("more_body", False))
        elif kind == TRAILERS:
            self._trailer(message)
        else:
            await self._server_send(message)
            return
        await self._flush()
        while not self._over and self._stream.response_full:
            self._read_beside()
            await self._wait()

    def _start(self, message: Message) -> None:
        status = message["status"]
        headers = [(bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in message.get("headers", ())]
        headers = [pair for pair in headers if pair[0] not in FRAMING]
        bodiless = self._scope["method"] == "HEAD" or status in NO_BODY
        self._trailers = [] if message.get("trailers") and not bodiless else None
        end = bodiless or (self._trailers is None and (b"content-length", b"0") in headers)
        self._response_ended = end
        self._response = headers
        self._feed(self._stream.response_headers([(b":status", b"%d" % status), *headers], end))

    def _body(self, data: bytes, more: bool) -> None:
        if self._response_ended:
            return
        end = not more and self._trailers is None
        self._response_ended = end
        if data or end:
            self._feed(self._stream.response_body(data, end))

    def _trailer(self, message: Message) -> None:
        if self._response_ended or self._trailers is None:
            return
        self._trailers += [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
        if not message.get("more_trailers", False):
            self._response_ended = True
            self._feed(self._stream.response_trailers(self._trailers))

    # -- Out of the stream ---------------------------------------------------------------------------------------

    def _feed(self, todo: list[Effect]) -> None:
        """Perform what an event of ours has brought about; who fed it will flush."""
        self._feeding = True
        try:
            self._driver.perform(todo)
        finally:
            self._feeding = False

    def _sink(self, effect: Effect) -> None:
        if isinstance(effect, (effects.RequestHeaders, effects.RequestBody, effects.RequestTrailers)):
            if self._fix_content_length and isinstance(effect, effects.RequestHeaders):
                self._request_framing = framing_of(self._stream, effect, self._request)
            for part in self._framed(self._request_framing, effect):
                self._upstream(part)
        elif isinstance(effect, (effects.ResponseHeaders, effects.ResponseBody, effects.ResponseTrailers)):
            if self._fix_content_length and isinstance(effect, effects.ResponseHeaders):
                wait_for = self._stream.buffer_limit if self._scope["http_version"] == "1.0" else 0
                self._response_framing = framing_of(self._stream, effect, self._response, wait_for=wait_for)
            for part in self._framed(self._response_framing, effect):
                self._downstream(part)
        elif isinstance(effect, effects.ResetStream):
            self._reset = True
            self._to_client.clear()
            if not self._started:
                self._answer(503)
            elif self._running is not None and not self._feeding:
                self._running.cancel()  # what it has sent is to be cut, and nothing else may wake it
        if not self._feeding:
            if self._awaiting is not None and self._over:
                self._awaiting.cancel()  # of a client that sends no more
            self._changed()
            if self._to_client and not self._sending:
                self._driver.start_soon(self._flush_beside)

    @staticmethod
    def _framed(framing: Framing | None, part: Part) -> Iterable[Part]:
        return (part,) if framing is None else framing.forward(part)

    def _upstream(self, part: Part) -> None:
        if isinstance(part, effects.RequestHeaders):
            head = request_head(part)
            if head is None:
                self._unsendable("request", part.headers, 503 if sendable(self._request[4:]) else 400)
            else:
                self._app_scope = upstream_scope(self._scope, head)
            if part.end_stream:
                self._to_app.append({"type": "http.request", "body": b"", "more_body": False})
        elif isinstance(part, effects.RequestBody):
            self._to_app.append({"type": "http.request", "body": part.data, "more_body": not part.end_stream})
        else:  # ASGI has no trailers of requests
            self._to_app.append({"type": "http.request", "body": b"", "more_body": False})

    def _downstream(self, part: Part) -> None:
        if self._answered:
            return
        if isinstance(part, effects.ResponseHeaders):
            self._send_start(part)
        elif isinstance(part, effects.ResponseBody):
            more = not part.end_stream
            self._put_body(part.data, more)
        elif isinstance(part, effects.ResponseTrailers):
            self._put_body(b"", False)
            if self._trailers_announced:
                trailers = [pair for pair in for_wire(part.trailers) if sendable([pair])]
                self._to_client.append({"type": TRAILERS, "headers": trailers, "more_trailers": False})

    def _send_start(self, part: effects.ResponseHeaders) -> None:
        head = response_head(part, self._scope["method"])
        if head is None:
            self._unsendable("response", part.headers)
            return
        message: Message = {"type": "http.response.start", "status": head.status, "headers": head.headers}
        if not head.ends and self._trailers is not None and TRAILERS in (self._scope.get("extensions") or {}):
            self._trailers_announced = message["trailers"] = True
        self._to_client.append(message)
        if head.ends:
            self._put_body(b"", False)

    def _put_body(self, data: bytes, more: bool) -> None:
        self._to_client.append({"type": "http.response.body", "body": data, "more_body": more})
        if not more:
            self._answered = True

    def _unsendable(self, what: str, headers: HeaderList, status: int = 503) -> None:
        if status == 503:
            logger.warning(UNSENDABLE, what, oddities(headers))
        self._answer(status)

    def _answer(self, status: int) -> None:
        """Answer by ourselves, past all filters."""
        headers = [(b"content-length", b"0")]
        self._answered = True
        self._to_client.append({"type": "http.response.start", "status": status, "headers": headers})
        self._to_client.append({"type": "http.response.body", "body": b"", "more_body": False})

    async def _flush(self) -> None:
        """Send the client what has come out, in order; or wait until whoever does so is done."""
        while self._sending:
            await self._wait()
        if not self._to_client:
            return
        self._sending = True
        try:
            while self._to_client:
                self._started = True
                await self._server_send(self._to_client.popleft())
        except OSError:  # the client is gone
            self._to_client.clear()
            if not self._gone:
                self._gone = True
                self._feed(self._stream.close(GONE))
        finally:
            self._sending = False
            self._changed()

    async def _flush_beside(self) -> None:
        try:
            await self._flush()
        except Exception as error:  # noqa: BLE001 - it is raised where the exchange runs
            self._error = error
            self._changed()

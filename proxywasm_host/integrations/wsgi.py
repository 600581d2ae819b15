"""Filters in front of a WSGI application: ``ProxyWasmMiddleware(app, ["auth.wasm"])``.

Rules of this module:

* One host serves all threads of a process; it starts with the process's first request (so after a server has forked)
  and ends with `ProxyWasmMiddleware.close`, or with the process.
* The thread of a request waits while a filter holds what it needs. WSGI does not tell that a client has gone: that
  shows when the response is sent, or when the body ends before its ``CONTENT_LENGTH``.
* ``start_response`` of the server is called when the response's headers have come out of the filters, and always before
  the application (that we are to the server) returns: granian looks at nothing that comes later. What WSGI has no words
  for (trailers, upgrades) is not passed on.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver import filters as filter_list
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.driver.health import Watch, watch
from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.integrations.carrier import Carrier
from proxywasm_host.integrations.framing import Framing, Part, framing_of, length_of
from proxywasm_host.integrations.headers import Refused, address, for_filters, sendable
from proxywasm_host.integrations.heads import NO_BODY, UNSENDABLE, RequestHead, oddities, request_head, response_head
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmMiddleware"]

Environ = dict[str, Any]
CHUNK = 65536
GONE = "downstream_remote_disconnect"
UNPREFIXED = ("CONTENT_TYPE", "CONTENT_LENGTH")
RAW_TARGETS = ("RAW_URI", "REQUEST_URI")
"""Where servers keep the request's target as it was on the wire."""


class StreamReset(Exception):
    """A filter broke the stream off when a part of the response was sent: the server must cut the connection."""


class RequestCut(OSError):
    """The application reads a body that broke off: its client is gone."""


class ProxyWasmMiddleware(Carrier):
    """Runs filters in front of a WSGI application.

    Args: those of `Carrier`; `properties` may be a function of the environ, `clients` are those of `ThreadDriver`.
    """

    logger = logging.getLogger("proxywasm_host.wsgi")

    def _set_up(self) -> None:
        self._starting = threading.Lock()
        self._running: tuple[int, ThreadDriver, list[Plugin]] | None = None
        self._watched: list[Watch] = []
        self._closing = ExitStack()

    def start(self) -> tuple[int, ThreadDriver, list[Plugin]]:
        """Load the filters, unless this process has. The first request does it. Raises: as `Host.load_plugin`."""
        with self._starting:
            if self._running is None or self._running[0] != os.getpid():
                self._closing = ExitStack()  # what a parent process has is not ours to close
                with ExitStack() as opened:
                    host, timeout = opened.enter_context(self._make_host()), self._stream_idle_timeout
                    driver = opened.enter_context(ThreadDriver(host, self._clients, stream_idle_timeout=timeout))
                    plugins = filter_list.load(driver.host, self.filters)
                    with driver.lock:
                        driver.perform(driver.host.drain())
                    self._watched = watch(plugins, self.logger, self._on_failure)
                    driver.heal(plugins)
                    self._closing = opened.pop_all()
                self._running = os.getpid(), driver, plugins
            return self._running

    def _watches(self) -> list[Watch]:
        running = self._running
        return [] if running is None or running[0] != os.getpid() else self._watched

    def close(self) -> None:
        """End the plugins and free their VMs; another request would start them anew."""
        with self._starting:
            self._running = None
            self._closing.close()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        running = self._running
        if running is None or running[0] != os.getpid():
            running = self.start()
        _, driver, plugins = running
        try:
            headers = _request_headers(environ)
        except Refused as refused:
            start_response(_status_line(refused.status), _text(refused.headers))
            return [refused.body]
        properties = {**_properties(environ), **self._properties_of(environ)}
        with driver.lock:
            stream = driver.host.http_stream(
                plugins,
                properties=properties,
                buffer_limit=self._buffer_limit,
                header_limits=self._header_limits,
            )
        exchange = _Exchange(
            driver, stream, environ, headers, start_response, fix_content_length=self._fix_content_length
        )
        return _Response(exchange.run(self.app))


class _Response:
    """What is returned to the server: the parts of the body, the first of which has come out."""

    def __init__(self, parts: Generator[bytes, None, None]) -> None:
        self._parts = parts
        self._first: bytes | None = next(parts, b"")
        """``start_response`` was called for it. Of nothing, wsgiref would say the length, also where none may be."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        return next(self._parts) if first is None else first

    def close(self) -> None:
        """The server wants no more."""
        self._parts.close()


class _Exchange:
    """One request in progress, in one thread; what others bring wakes it."""

    def __init__(
        self,
        driver: ThreadDriver,
        stream: HttpStream,
        environ: Environ,
        headers: HeaderList,
        start_response: Callable[..., Any],
        *,
        fix_content_length: bool,
    ) -> None:
        self._driver = driver
        self._stream = stream
        self._environ = environ
        self._request = headers
        self._start_response = start_response
        self._changed = threading.Condition(driver.lock)
        self._request_framing: Framing | None = None
        self._response_framing: Framing | None = None
        self._fix_content_length = fix_content_length
        self._response: HeaderList = []
        """The response's headers as the application sent them."""
        length = environ.get("CONTENT_LENGTH") or ""
        self._unread: float = (length_of([length.encode("latin-1")]) if length else None) or 0
        if not length and environ.get("wsgi.input_terminated"):
            self._unread = float("inf")

        self._upstream: RequestHead | None = None
        self._to_app: deque[bytes] = deque()
        self._request_done = False
        """The end of the request has come out."""
        self._start: tuple[str, HeaderList] | None = None
        self._started = False
        """The server's start_response was called."""
        self._to_client: deque[bytes] = deque()
        self._answered = False
        """The end of the response has come out."""
        self._reset = False
        self._cut = False
        """The request broke off."""
        self._status_line = ""
        self._pending: tuple[str, list[tuple[str, str]]] | None = None
        """What the application gave start_response, until the first part of the body."""
        self._response_ended = False

    def run(self, app: Callable[..., Iterable[bytes]]) -> Generator[bytes, None, None]:
        try:
            self._begin()
            while self._upstream is None and not self._over:
                self._advance_request()
            if self._upstream is not None and not self._over:
                with suppress(RequestCut):
                    yield from self._respond(app)
            while not (self._answered or self._reset) and (self._response_ended or self._stream.local is not None):
                self._wait(lambda: self._answered or self._reset or bool(self._to_client))
                yield from self._sent()
            yield from self._sent()
            if self._reset and not self._answered:
                raise StreamReset(self._stream.reset_details)
        finally:
            with self._driver.lock:
                whole = self._answered or self._stream.reset_details
                self._driver.detach(self._stream)
                self._driver.perform(self._stream.close("" if whole else GONE))

    @property
    def _over(self) -> bool:
        return self._answered or self._reset or self._stream.local is not None

    def _feed(self, event: Callable[..., list[Effect]], *args: Any) -> None:
        with self._driver.lock:
            self._driver.perform(event(*args))

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until what other threads bring makes it true."""
        with self._changed:
            self._changed.wait_for(ready)

    # -- The request ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        with self._driver.lock:
            self._driver.attach(self._stream, self._sink)
            self._driver.perform(self._stream.request_headers(self._request, not self._unread))

    def _advance_request(self) -> None:
        """Read a part of the request, or wait until a filter lets something go."""
        if not self._unread or self._stream.request_full:
            before = self._upstream
            self._wait(
                lambda: (
                    self._over
                    or self._request_done
                    or self._upstream is not before
                    or bool(self._to_app or (self._unread and not self._stream.request_full))
                )
            )
            return
        stream = self._environ["wsgi.input"]
        data = stream.read(int(min(self._unread, CHUNK)))
        if not data and self._unread < float("inf"):
            self._cut = True
            self._feed(self._stream.close, GONE)
            self._break_off(400)
            return
        self._unread = self._unread - len(data) if data else 0
        self._feed(self._stream.request_body, data, not self._unread)

    def read_part(self) -> bytes:
        """The next part of the body for the application; empty at its end, or if there is nobody to read from."""
        while not self._to_app and not self._request_done and not self._over:
            self._advance_request()
        if self._cut:
            raise RequestCut(GONE)
        return self._to_app.popleft() if self._to_app else b""

    # -- The response --------------------------------------------------------------------------------------------

    def _respond(self, app: Callable[..., Iterable[bytes]]) -> Iterator[bytes]:
        assert self._upstream is not None  # noqa: S101 - it has come out
        environ = _upstream_environ(self._environ, self._upstream, io.BufferedReader(_Input(self)))
        parts = app(environ, self._app_start_response)
        try:
            for part in parts:
                self._body(part)
                yield from self._sent()
                while not self._over and self._stream.response_full:
                    self._wait(lambda: self._over or bool(self._to_client) or not self._stream.response_full)
                    yield from self._sent()
                if self._over:
                    return
            if not self._over:
                self._end()
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _app_start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._pending is None and self._status_line:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        self._pending = status, headers
        return self._body

    def _headers(self, *, end: bool) -> None:
        assert self._pending is not None, "the application has not called start_response"  # noqa: S101 - it must
        self._status_line, given = self._pending
        self._pending = None
        code = int(self._status_line[:3])
        headers = [(name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1")) for name, value in given]
        end = end or self._environ["REQUEST_METHOD"] == "HEAD" or code in NO_BODY
        self._response_ended = end
        self._response = headers
        self._feed(self._stream.response_headers, [(b":status", b"%d" % code), *headers], end)

    def _body(self, data: bytes) -> None:
        if data and not self._over:
            if self._pending is not None:
                self._headers(end=False)
            if not self._response_ended:
                self._feed(self._stream.response_body, bytes(data))

    def _end(self) -> None:
        if self._pending is not None:
            self._headers(end=True)
        if not self._response_ended and self._status_line:
            self._response_ended = True
            self._feed(self._stream.response_body, b"", True)

    def _sent(self) -> Iterator[bytes]:
        """Give the server what has come out."""
        if self._start is not None and not self._started:
            self._started = True
            status, headers = self._start
            self._start_response(status, _text(headers))
        while self._to_client:
            yield self._to_client.popleft()

    # -- Out of the stream ---------------------------------------------------------------------------------------

    def _sink(self, effect: Effect) -> None:
        if isinstance(effect, (effects.RequestHeaders, effects.RequestBody, effects.RequestTrailers)):
            if self._fix_content_length and isinstance(effect, effects.RequestHeaders):
                self._request_framing = framing_of(self._stream, effect, self._request)
            for part in self._framed(self._request_framing, effect):
                self._to_upstream(part)
        elif isinstance(effect, (effects.ResponseHeaders, effects.ResponseBody, effects.ResponseTrailers)):
            if self._fix_content_length and isinstance(effect, effects.ResponseHeaders):
                self._response_framing = framing_of(self._stream, effect, self._response)
            for part in self._framed(self._response_framing, effect):
                self._to_downstream(part)
        elif isinstance(effect, effects.ResetStream):
            self._break_off(503)
        self._changed.notify()

    @staticmethod
    def _framed(framing: Framing | None, part: Part) -> Iterable[Part]:
        return (part,) if framing is None else framing.forward(part)

    def _to_upstream(self, part: Part) -> None:
        if isinstance(part, effects.RequestHeaders):
            self._upstream = request_head(part)
            if self._upstream is None:
                self._unsendable("request", part.headers, 503 if sendable(self._request[4:]) else 400)
        elif isinstance(part, effects.RequestBody) and part.data:
            self._to_app.append(part.data)
        self._request_done = not hasattr(part, "end_stream") or part.end_stream

    def _to_downstream(self, part: Part) -> None:
        if self._answered:
            return
        if isinstance(part, effects.ResponseHeaders):
            head = response_head(part, self._environ["REQUEST_METHOD"])
            if head is None:
                self._unsendable("response", part.headers)
                return
            same = self._status_line[:3] == str(head.status)
            self._start = (self._status_line if same else _status_line(head.status)), head.headers
            self._answered = head.ends
        elif isinstance(part, effects.ResponseBody):
            if part.data:
                self._to_client.append(part.data)
            self._answered = part.end_stream
        else:
            self._answered = True

    def _unsendable(self, what: str, headers: HeaderList, status: int = 503) -> None:
        if status == 503:
            ProxyWasmMiddleware.logger.warning(UNSENDABLE, what, oddities(headers))
        self._answer(status)

    def _break_off(self, status: int) -> None:
        """Cut the response, or answer with this status if it has not begun."""
        self._reset = True
        self._to_client.clear()
        if not self._started:
            self._answer(status)

    def _answer(self, status: int) -> None:
        """Answer by ourselves, past all filters."""
        self._start, self._answered = (_status_line(status), [(b"content-length", b"0")]), True


class _Input(io.RawIOBase):
    """``wsgi.input`` of the application."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or self._exchange.read_part()
        size = min(len(buffer), len(data))
        buffer[:size], self._rest = data[:size], data[size:]
        return size


# -- Environ -----------------------------------------------------------------------------------------------------------


def _request_headers(environ: Environ) -> HeaderList:
    """The request's headers for the first filter. Raises: Refused."""
    headers = []
    for key, value in environ.items():
        name = key[5:] if key[:5] == "HTTP_" else key if key in UNPREFIXED and value else ""
        if name:
            headers.append((name.lower().replace("_", "-").encode("latin-1"), value.encode("latin-1")))
    return for_filters(
        headers,
        environ["REQUEST_METHOD"].encode("latin-1"),
        _target(environ),
        environ["wsgi.url_scheme"].encode("latin-1"),
        address((environ["SERVER_NAME"], environ["SERVER_PORT"])).encode("latin-1"),
    )


def _target(environ: Environ) -> bytes:
    """Path and query as they were on the wire, as far as the server tells."""
    for name in RAW_TARGETS:
        if raw := environ.get(name):
            return bytes(raw.encode("latin-1"))
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    query = environ.get("QUERY_STRING", "").encode("latin-1")
    target = quote(path, safe="/:@!$&'()*+,;=~-._").encode() or b"/"
    return b"%b?%b" % (target, query) if query else target


def _upstream_environ(environ: Environ, head: RequestHead, body: io.BufferedReader) -> Environ:
    """The application's environ, of what came out of the filters."""
    upstream = {key: value for key, value in environ.items() if key[:5] != "HTTP_" and key not in UNPREFIXED}
    for header, value in head.headers:
        key = header.decode("latin-1").upper().replace("-", "_")
        key, text = key if key in UNPREFIXED else f"HTTP_{key}", value.decode("latin-1")
        upstream[key] = f"{upstream[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}" if key in upstream else text
    upstream["REQUEST_METHOD"] = head.method
    upstream["wsgi.url_scheme"] = head.scheme
    upstream["wsgi.input"] = body
    upstream["wsgi.input_terminated"] = True
    if head.path != _target(environ):
        raw, _, query = head.path.partition(b"?")
        path, script = unquote_to_bytes(raw).decode("latin-1"), environ.get("SCRIPT_NAME", "")
        inside = path.startswith(f"{script}/") or path == script
        upstream["SCRIPT_NAME"] = script if inside else ""
        upstream["PATH_INFO"] = path[len(script) :] if inside else path
        upstream["QUERY_STRING"] = query.partition(b"#")[0].decode("latin-1")
        for name in RAW_TARGETS:
            if name in environ:
                upstream[name] = head.path.decode("latin-1")
    return upstream


def _text(headers: HeaderList) -> list[tuple[str, str]]:
    """Headers as WSGI has them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def _properties(environ: Environ) -> dict[str, PropertyValue]:
    known: dict[str, PropertyValue] = {"request.protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1")}
    for group, host, port in (("source", "REMOTE_ADDR", "REMOTE_PORT"), ("destination", "SERVER_NAME", "SERVER_PORT")):
        number = str(environ.get(port, ""))
        if environ.get(host):
            known[f"{group}.address"] = address((environ[host], number or None))
        if number.isdigit():
            known[f"{group}.port"] = int(number)
    return known

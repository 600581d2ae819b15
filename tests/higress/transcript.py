"""One HTTP exchange with a plugin, written down so that a test reads as a transcript of it.

Whatever comes out is taken apart by direction: what upstream got, what the client got, and the callouts that wait for
a reply. Callouts are answered in the order in which they were made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from proxywasm_host import Host, Plugin
from proxywasm_host.runtime.effects import (
    ClearRouteCache,
    Effect,
    HttpCall,
    HttpCallReply,
    RedisCall,
    RedisCallReply,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


class Message:
    """What one side has got so far."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] | None = None
        self.chunks: list[bytes] = []
        self.ended = False

    @property
    def headers(self) -> dict[str, str]:
        """Headers by name; of several with one name the values, joined with ``", "``."""
        assert self.pairs is not None, "no headers yet"
        found: dict[str, str] = {}
        for name, value in self.pairs:
            key = name.decode()
            found[key] = f"{found[key]}, {value.decode()}" if key in found else value.decode()
        return found

    @property
    def status(self) -> int:
        return int(self.headers[":status"])

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        assert self.ended, "the body has not ended"
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of server-sent events: JSON, or ``"[DONE]"``."""
        lines = self.body.decode().splitlines()
        data = [line.partition(":")[2].strip() for line in lines if line.startswith("data:")]
        return [json.loads(text) if text.startswith("{") else text for text in data]


class Exchange:
    """An exchange in progress."""

    def __init__(self, host: Host, plugins: Sequence[Plugin], properties: Mapping[str, Any], buffer_limit: int) -> None:
        self.host = host
        self.stream = host.http_stream(plugins, properties=properties, buffer_limit=buffer_limit)
        self.upstream = Message()
        self.client = Message()
        self.callouts: list[HttpCall | RedisCall] = []
        self.effects: list[Effect] = []

    # -- In ------------------------------------------------------------------------------------------------------

    def request(self, path: str, body: Any = None, *, method: str = "", end: bool = True, **headers: str) -> Exchange:
        """The client's request. `body` is bytes or JSON; of headers ``_`` stands for ``-``."""
        given = {
            ":authority": "example.com",
            ":path": path,
            ":method": method or ("GET" if body is None else "POST"),
            ":scheme": "http",
            **named(headers),
        }
        if body is None:
            return self._take(self.stream.request_headers(pairs(given), end))
        data = encoded(body)
        if not isinstance(body, bytes):
            given.setdefault("content-type", "application/json")
        given.setdefault("content-length", str(len(data)))
        self._take(self.stream.request_headers(pairs(given)))
        return self._take(self.stream.request_body(data, end))

    def part(self, data: bytes = b"", end: bool = True) -> Exchange:
        """A further part of the client's body."""
        return self._take(self.stream.request_body(data, end))

    def begin(self, *, status: int = 200, **headers: str) -> Exchange:
        """The headers of upstream's response, which a body follows."""
        return self._take(self.stream.response_headers(pairs({":status": str(status), **named(headers)})))

    def respond(self, body: Any = None, *, status: int = 200, **headers: str) -> Exchange:
        """Upstream's response. `body` is bytes, JSON, or a list of chunks."""
        given = {":status": str(status), **named(headers)}
        if body is None:
            return self._take(self.stream.response_headers(pairs(given), True))
        if not isinstance(body, (bytes, list)):
            given.setdefault("content-type", "application/json")
        chunks = body if isinstance(body, list) else [encoded(body)]
        if not isinstance(body, list):
            given.setdefault("content-length", str(len(chunks[0])))
        self._take(self.stream.response_headers(pairs(given)))
        for index, chunk in enumerate(chunks):
            self.chunk(chunk, index == len(chunks) - 1)
        return self

    def chunk(self, data: bytes, end: bool = False) -> Exchange:
        """A part of upstream's body."""
        return self._take(self.stream.response_body(data, end))

    def reply(self, body: Any = b"", *, status: int = 200, **headers: str) -> Exchange:
        """The reply to the oldest HTTP callout."""
        callout = self.callouts.pop(0)
        assert isinstance(callout, HttpCall)
        given = pairs({":status": str(status), **named(headers)})
        return self._take(self.host.deliver(callout, HttpCallReply(given, encoded(body))))

    def redis(self, response: bytes) -> Exchange:
        """The reply to the oldest Redis callout, as RESP bytes."""
        callout = self.callouts.pop(0)
        assert isinstance(callout, RedisCall)
        return self._take(self.host.deliver(callout, RedisCallReply(response)))

    def close(self) -> Exchange:
        return self._take(self.stream.close())

    # -- Out -----------------------------------------------------------------------------------------------------

    @property
    def callout(self) -> HttpCall | RedisCall:
        """The one callout that waits for its reply."""
        (callout,) = self.callouts
        return callout

    @property
    def forwarded(self) -> bool:
        """Whether upstream has got the request's headers."""
        return self.upstream.pairs is not None

    @property
    def rerouted(self) -> bool:
        return any(isinstance(effect, ClearRouteCache) for effect in self.effects)

    def state(self, name: str) -> str:
        """What a plugin stored for the stream."""
        return self.stream.filter_state[name].decode()

    def _take(self, effects: list[Effect]) -> Exchange:
        self.effects += effects
        for effect in effects:
            if isinstance(effect, (HttpCall, RedisCall)):
                self.callouts.append(effect)
                continue
            side = self.client if isinstance(effect, (ResponseHeaders, ResponseBody)) else self.upstream
            if isinstance(effect, (RequestHeaders, ResponseHeaders)):
                side.pairs = effect.headers
                side.ended = effect.end_stream
            elif isinstance(effect, (RequestBody, ResponseBody)):
                side.chunks.append(effect.data)
                side.ended = effect.end_stream
        return self


def named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def pairs(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def event(data: Any) -> bytes:
    """A server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"data: {text}\n\n".encode()


def sent(callout: HttpCall) -> dict[str, str]:
    """Headers of an HTTP callout."""
    return {name.decode(): value.decode() for name, value in callout.headers}


def command(callout: RedisCall) -> list[str]:
    """The words of a Redis callout's command."""
    words = callout.query.split(b"\r\n")
    assert words[0].startswith(b"*")
    return [word.decode() for word in words[2::2]]


def bulk(*values: str | int) -> bytes:
    """A RESP array of bulk strings and integers."""
    items = [b":%d\r\n" % v if isinstance(v, int) else b"$%d\r\n%b\r\n" % (len(v), v.encode()) for v in values]
    return b"*%d\r\n%b" % (len(items), b"".join(items))

"""Carries a request that a program makes in a thread: filters between it and who sends it.

The thread waits while a filter holds what it needs. While it waits for upstream, what other threads bring (a reply, a
time-out) is heard when upstream has said something.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ResponseHead
from proxywasm_host.integrations.headers import LENGTH, addressed, length_of
from proxywasm_host.runtime.effects import RequestBody, ResponseBody
from proxywasm_host.runtime.http import HttpStream

__all__ = ["OUTGOING", "Answer", "Ask", "Call", "Outgoing", "framed"]

OUTGOING: Final[dict[str, PropertyValue]] = {"listener_direction": 2}
"""Properties of requests that a program makes: Envoy's ``TrafficDirection.OUTBOUND``."""


@dataclass(frozen=True)
class Outgoing:
    """A request of the program. `headers` are as the program has them, ``Host`` among them."""

    method: bytes
    target: bytes
    scheme: bytes
    headers: list[tuple[bytes, bytes]]

    def shown(self) -> HeaderList:
        """The headers with their names in lower case."""
        return [(name.lower(), value) for name, value in self.headers]

    def addressed(self) -> tuple[bytes, bytes]:
        """Authority and path that filters will see."""
        return addressed(self.shown(), self.method, self.target, self.scheme, b"")

    @property
    def length(self) -> int | None:
        """What its ``content-length`` says."""
        return length_of([value for name, value in self.shown() if name == LENGTH])


@dataclass
class Answer:
    """Upstream's response."""

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    parts: Iterable[bytes]
    close: Callable[[], None]


Ask = Callable[[RequestHead, "Iterator[bytes] | None"], Answer]
"""Sends a request with the parts of its body, if it has one, and gives the head of its response."""


def framed(head: RequestHead) -> HeaderList:
    """The headers to send with a request, as HTTP/1.1 has them: a body of unknown length is chunked."""
    if head.end_stream or head.at >= 0:
        return head.headers
    return [*head.headers, (b"transfer-encoding", b"chunked")]


class Call:
    """A request in progress.

    Args:
        driver: of the stream.
        stream: through the filters.
        ask: sends the request. What it raises, the program gets.
        fix_content_length: as `Exchange`.
    """

    def __init__(self, driver: ThreadDriver, stream: HttpStream, ask: Ask, *, fix_content_length: bool) -> None:
        self._changed = threading.Condition(driver.lock)
        self._exchange = Exchange(driver, stream, fix_content_length=fix_content_length, wake=self._changed.notify)
        self._ask = ask
        self._body: Iterator[bytes] = iter(())
        self._left: int | None = None

    def run(self, request: Outgoing, body: Iterable[bytes] | None) -> tuple[ResponseHead, Generator[bytes, None, None]]:
        """Make the request: the head of the response, and its parts. Raises what `ask` raises; StreamReset."""
        steps = self._steps(request, body)
        head = next(steps)
        assert isinstance(head, ResponseHead)  # noqa: S101 - it comes first
        return head, (part for part in steps if isinstance(part, bytes))

    def _steps(self, request: Outgoing, body: Iterable[bytes] | None) -> Generator[ResponseHead | bytes, None, None]:
        exchange = self._exchange
        if body is not None:
            self._body, self._left = iter(body), request.length
        ends = body is None or self._left == 0
        try:
            self._feed(exchange.begin, request.method, request.target, request.scheme, request.shown(), ends)
            while not (exchange.to_upstream or exchange.over):
                self._advance()
            if not exchange.over:
                head = exchange.request_head()
                answer = self._ask(head, None if head.end_stream else self._request_parts())
                try:
                    yield from self._respond(answer)
                finally:
                    answer.close()
            while not exchange.finished and (exchange.response_ended or exchange.over):
                self._wait(lambda: bool(exchange.to_client) or exchange.finished)
                yield from self._out()
            exchange.raise_if_cut()
        finally:
            self._feed(exchange.close)

    def _feed(self, event: Callable[..., None], *args: Any) -> None:
        with self._changed:
            event(*args)

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(ready)

    def _advance(self) -> None:
        """Take a part of the program's body, or wait until a filter lets something go."""
        exchange = self._exchange
        if not exchange.wants_request:
            self._wait(lambda: exchange.over or bool(exchange.to_upstream) or exchange.wants_request)
            return
        part = next(self._body, None)
        if part is not None and self._left is not None:
            self._left -= len(part)
        self._feed(exchange.request_body, part or b"", part is None or self._left == 0)

    def _request_parts(self) -> Iterator[bytes]:
        """The body for upstream. It breaks off when the program has been answered otherwise."""
        exchange = self._exchange
        while not exchange.over:
            if not exchange.to_upstream:
                self._advance()
                continue
            part = exchange.to_upstream.popleft()
            if not isinstance(part, RequestBody):
                return
            if part.data:
                yield part.data
            if part.end_stream:
                return

    def _respond(self, answer: Answer) -> Iterator[ResponseHead | bytes]:
        exchange = self._exchange
        self._feed(exchange.response, answer.status, answer.headers)
        yield from self._out()
        for part in answer.parts:
            self._feed(exchange.response_body, part, False)
            yield from self._out()
            while exchange.stream.response_full and not exchange.over:
                self._wait(lambda: exchange.over or bool(exchange.to_client) or not exchange.stream.response_full)
                yield from self._out()
            if exchange.over:
                return
        self._feed(exchange.response_body, b"", True)

    def _out(self) -> Iterator[ResponseHead | bytes]:
        """What has come out for the program."""
        exchange = self._exchange
        while exchange.to_client:
            with self._changed:
                part = exchange.to_client.popleft() if exchange.to_client else None
            if isinstance(part, ResponseHead):
                yield part
            elif isinstance(part, ResponseBody) and part.data:
                yield part.data

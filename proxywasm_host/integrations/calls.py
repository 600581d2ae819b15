"""Carries a request that a program makes in a thread: filters between it and who sends it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.integrations.exchange import RequestHead, ResponseHead
from proxywasm_host.integrations.headers import LENGTH, addressed, length_of
from proxywasm_host.integrations.synchronous import Sent, ThreadPump
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


class Call(ThreadPump):
    """A request in progress.

    Args:
        driver: of the stream.
        stream: through the filters.
        ask: sends the request. What it raises, the program gets.
        fix_content_length: as `Exchange`.
    """

    def __init__(self, driver: ThreadDriver, stream: HttpStream, ask: Ask, *, fix_content_length: bool) -> None:
        super().__init__(driver, stream, fix_content_length=fix_content_length)
        self._ask = ask

    def run(self, request: Outgoing, body: Iterable[bytes] | None) -> tuple[ResponseHead, Generator[bytes, None, None]]:
        """Make the request: the head of the response, and its parts. Raises what `ask` raises; StreamReset."""
        self._request = request
        self._body = iter(() if body is None else body)
        self._left = None if body is None else request.length
        self._ends = body is None or self._left == 0
        sent = self.carry()
        head = next(sent)
        assert isinstance(head, ResponseHead)  # noqa: S101 - it comes first
        return head, (part for part in sent if isinstance(part, bytes))

    def begin(self) -> None:
        """Give the request's head to the filters."""
        request = self._request
        self.feed(self.exchange.begin, request.method, request.target, request.scheme, request.shown(), self._ends)

    def read(self) -> None:
        """Take the next part of the program's body."""
        part = next(self._body, None)
        if part is not None and self._left is not None:
            self._left -= len(part)
        self.feed(self.exchange.request_body, part or b"", part is None or self._left == 0)

    def ask(self) -> Iterator[Sent]:
        """Send the request, and feed its response."""
        exchange = self.exchange
        head = exchange.request_head()
        answer = self._ask(head, None if head.end_stream else iter(self.request_part, b""))
        try:
            self.feed(exchange.response, answer.status, answer.headers)
            yield from self.sent()
            for part in answer.parts:
                self.feed(exchange.response_body, part, False)
                yield from self.sent_below_limit()
                if exchange.over:
                    return
            self.feed(exchange.response_body, b"", True)
        finally:
            answer.close()

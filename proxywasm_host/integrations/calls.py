"""Carries a program's request through filters, in a thread, to the library that sends it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.integrations.exchange import ResponseHead
from proxywasm_host.integrations.outgoing import Ask, Outgoing
from proxywasm_host.integrations.synchronous import Sent, ThreadPump
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Call"]


class Call(ThreadPump):
    """A request in progress.

    Args:
        driver: performs the stream's effects.
        stream: the request's stream through the filters.
        ask: sends the request. Its exceptions reach the program.
        fix_content_length: as `Exchange`.
    """

    def __init__(self, driver: ThreadDriver, stream: HttpStream, ask: Ask, *, fix_content_length: bool) -> None:
        super().__init__(driver, stream, fix_content_length=fix_content_length)
        self._ask = ask

    def run(self, request: Outgoing, body: Iterable[bytes] | None) -> tuple[ResponseHead, Generator[bytes, None, None]]:
        """Make the request, and return the head and the parts of the response.

        Raises: the errors of `ask`, and StreamReset.
        """
        self._request = request
        self._body = iter(() if body is None else body)
        self._left = None if body is None else request.length
        self._ends = body is None or self._left == 0
        sent = self.carry()
        head = next(sent)
        assert isinstance(head, ResponseHead)  # noqa: S101 - it comes first
        return head, (part for part in sent if isinstance(part, bytes))

    def begin(self) -> None:
        """Feed the request's head."""
        request = self._request
        self.feed(self.exchange.begin, request.method, request.target, request.scheme, request.shown(), self._ends)

    def read(self) -> None:
        """Feed the next part of the program's body."""
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

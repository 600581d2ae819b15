"""The base of carriers in a thread, which does one thing at a time, and waits while a filter holds the next part.

A carrier defines how to read the request (`begin`, `read`) and how to get the response (`ask`). This module decides
when. An event from another thread (a reply, a time-out) wakes the thread if it waits for filters. A thread that reads
the request or waits for upstream handles the event afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from logging import Logger
from typing import Any, Union

from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.integrations.exchange import Exchange, ResponseHead
from proxywasm_host.integrations.exchange_base import logger
from proxywasm_host.runtime.effects import RequestBody, ResponseBody
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Sent", "ThreadPump"]

Sent = Union[ResponseHead, bytes]
"""Parts for the client: the head, then the parts of the body."""


class ThreadPump:
    """A request in progress.

    Args:
        driver: performs the stream's effects.
        stream: the request's stream.
        fix_content_length: as `Exchange`.
        log: as `Exchange`.
    """

    _request_done = False
    """Whether upstream has got the end of the request."""

    def __init__(
        self, driver: ThreadDriver, stream: HttpStream, *, fix_content_length: bool, log: Logger = logger
    ) -> None:
        self.changed = threading.Condition(driver.lock)
        """Held while the exchange is fed; notified when something has come out of it."""
        self.exchange = Exchange(
            driver, stream, fix_content_length=fix_content_length, wake=self.changed.notify, log=log
        )

    # -- For a carrier to define ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Feed the request's head."""
        raise NotImplementedError

    def read(self) -> None:
        """Read the next part of the request's body, and feed it."""
        raise NotImplementedError

    def ask(self) -> Iterator[Sent]:
        """Send the request upstream, feed the response, and yield the parts that come out."""
        raise NotImplementedError

    # -- The exchange --------------------------------------------------------------------------------------------

    def carry(self) -> Generator[Sent, None, None]:
        """Yield the parts of the response. Raises: the errors of `ask`, and StreamReset."""
        exchange = self.exchange
        try:
            self.begin()
            while not (exchange.to_upstream or exchange.over):
                self._advance()
            if not exchange.over:
                yield from self.ask()
            while not exchange.finished and (exchange.response_ended or exchange.over):
                self._wait(lambda: bool(exchange.to_client) or exchange.finished)
                yield from self.sent()
            exchange.raise_if_cut()
        finally:
            self.feed(exchange.close)

    def feed(self, event: Callable[..., None], *args: Any) -> None:
        """Feed the exchange an event."""
        with self.changed:
            event(*args)

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self.changed:
            self.changed.wait_for(ready)

    def _advance(self) -> None:
        """Read a part of the request, or wait until a filter releases something."""
        exchange = self.exchange
        if exchange.wants_request:
            self.read()
        else:
            self._wait(lambda: exchange.over or bool(exchange.to_upstream) or exchange.wants_request)

    def request_part(self) -> bytes:
        """The next part of the body for upstream; empty at its end, and once upstream is ignored."""
        exchange = self.exchange
        while not (self._request_done or exchange.over):
            if not exchange.to_upstream:
                self._advance()
                continue
            part = exchange.to_upstream.popleft()
            self._request_done = not isinstance(part, RequestBody) or part.end_stream
            if isinstance(part, RequestBody) and part.data:
                return part.data
        return b""

    def sent(self) -> Iterator[Sent]:
        """Yield the parts that have come out for the client."""
        exchange = self.exchange
        while exchange.to_client:
            with self.changed:
                part = exchange.to_client.popleft() if exchange.to_client else None
            if isinstance(part, ResponseHead):
                yield part
            elif isinstance(part, ResponseBody) and part.data:
                yield part.data

    def sent_below_limit(self) -> Iterator[Sent]:
        """As `sent`, until filters hold less of the response than their limit."""
        exchange = self.exchange
        yield from self.sent()
        while exchange.stream.response_full and not exchange.over:
            self._wait(lambda: exchange.over or bool(exchange.to_client) or not exchange.stream.response_full)
            yield from self.sent()

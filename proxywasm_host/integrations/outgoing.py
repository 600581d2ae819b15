"""Requests that a program makes, and their responses, in a thread and in an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.integrations.exchange import RequestHead
from proxywasm_host.integrations.headers import LENGTH, addressed, length_of

__all__ = ["OUTGOING", "Answer", "Ask", "AsyncAnswer", "AsyncAsk", "Outgoing", "framed"]

OUTGOING: Final[dict[str, PropertyValue]] = {"listener_direction": 2}
"""Properties of requests that a program makes: Envoy's ``TrafficDirection.OUTBOUND``."""


@dataclass(frozen=True)
class Outgoing:
    """A request of the program. `headers` are those of the program, including ``Host``."""

    method: bytes
    target: bytes
    scheme: bytes
    headers: list[tuple[bytes, bytes]]

    def shown(self) -> HeaderList:
        """The headers with their names in lower case."""
        return [(name.lower(), value) for name, value in self.headers]

    def addressed(self) -> tuple[bytes, bytes]:
        """The authority and path that filters will see."""
        return addressed(self.shown(), self.method, self.target, self.scheme, b"")

    @property
    def length(self) -> int | None:
        """The value of the request's ``content-length``."""
        return length_of([value for name, value in self.shown() if name == LENGTH])


@dataclass
class Answer:
    """Upstream's response."""

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    parts: Iterable[bytes]
    close: Callable[[], None]


Ask = Callable[[RequestHead, "Iterator[bytes] | None"], Answer]
"""Sends a request with the parts of its body, if it has one, and returns the head of its response."""


def framed(head: RequestHead) -> HeaderList:
    """A request's headers for HTTP/1.1: a body of unknown length is chunked."""
    if head.end_stream or head.at >= 0:
        return head.headers
    return [*head.headers, (b"transfer-encoding", b"chunked")]


@dataclass
class AsyncAnswer:
    """Upstream's response."""

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    parts: AsyncIterable[bytes]
    close: Callable[[], Awaitable[None]]


AsyncAsk = Callable[[RequestHead, "AsyncIterator[bytes] | None"], Awaitable[AsyncAnswer]]
"""Sends a request with the parts of its body, if it has one, and returns the head of its response."""

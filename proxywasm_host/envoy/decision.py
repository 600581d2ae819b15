"""Runs filters that decide whether a request may pass: one question, one answer.

The request goes through the chain. If it comes out, it may pass, with the filters' changes of its headers. If a filter
answers it, that answer is the denial. Filters never see the response.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.envoy.mutation import received, sent_request
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ResponseHead, State
from proxywasm_host.runtime.effects import ResponseBody
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Decision", "Question", "decide"]


@dataclass(frozen=True)
class Question:
    """The request that a client asks about. `headers` has no pseudo headers and no ``host``."""

    method: bytes
    path: bytes
    scheme: bytes
    authority: bytes
    headers: HeaderList
    body: bytes = b""
    """The part of the body that arrived."""


@dataclass(frozen=True)
class Decision:
    """The answer: headers before and after the filters if the request may pass, else the response for the client."""

    before: HeaderList
    after: HeaderList | None
    response: ResponseHead | None = None
    body: bytes = b""
    failure: Failure | None = None
    """The failure of a guest, which prevented a decision."""

    @property
    def allowed(self) -> bool:
        """Whether the request may pass."""
        return self.after is not None


async def decide(driver: AsyncDriver, stream: HttpStream, question: Question) -> Decision:
    """Send a request through the filters of `stream`, until it comes out or is answered."""
    changed = asyncio.Event()
    exchange = Exchange(driver, stream, fix_content_length=False, wake=changed.set)
    before = [
        (b":method", question.method),
        (b":path", question.path),
        (b":scheme", question.scheme),
        (b":authority", question.authority),
        *received(question.headers),
    ]
    decided = False
    try:
        headers = [(b"host", question.authority), *question.headers]
        exchange.begin(question.method, question.path, question.scheme, headers, not question.body)
        if question.body and not exchange.over:
            exchange.request_body(question.body, True)
        after: HeaderList | None = None
        ended = False
        while exchange.state is State.WAITING or exchange.state is State.BEGUN:
            for part in exchange.to_upstream:
                if isinstance(part, RequestHead):
                    after, ended = sent_request(part), part.end_stream
                else:
                    ended = getattr(part, "end_stream", True)
            exchange.to_upstream.clear()
            if ended and not exchange.local:
                decided = True
                return Decision(before, after)
            await changed.wait()
            changed.clear()
        head = next((part for part in exchange.to_client if isinstance(part, ResponseHead)), None)
        body = b"".join(part.data for part in exchange.to_client if isinstance(part, ResponseBody))
        decided = True
        return Decision(before, None, head, body, stream.failure)
    finally:
        exchange.close(whole=decided)

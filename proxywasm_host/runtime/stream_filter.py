"""The state of a filter in a stream, for embedders: its last action, and the data that it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Union

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import Action, DataAction, HeadersAction
from proxywasm_host.runtime.fast_path import REQUEST, RESPONSE
from proxywasm_host.runtime.http_context import PART

if TYPE_CHECKING:
    from proxywasm_host.runtime.http_context import HttpContext
    from proxywasm_host.runtime.plugin import Plugin

__all__ = ["FilterSide", "StreamFilter", "filter_of"]

ACTIONS: tuple[type[IntEnum], ...] = (HeadersAction, DataAction, Action)
"""Actions of callbacks on headers, bodies and trailers."""


@dataclass(frozen=True, slots=True)
class FilterSide:
    """A filter and one direction of its stream."""

    action: Union[HeadersAction, DataAction, Action, int, None]
    """The result of its last callback; an ``int`` if it is not a known action. ``None`` if there was no callback, or
    the callback sent a local response or failed."""
    holds: bool
    """Whether it holds the message: the next part waits for it, or goes only to it."""
    headers: HeaderList | None = None
    """The headers that it holds now."""
    body: bytes = b""
    """The part of the body that it holds."""
    trailers: HeaderList | None = None
    """The trailers that it holds."""


@dataclass(frozen=True, slots=True)
class StreamFilter:
    """One filter of a stream, in its state when `HttpStream.filters` was read."""

    plugin: Plugin
    context_id: int
    """The id of the stream in its guest."""
    request: FilterSide = field(compare=False)
    response: FilterSide = field(compare=False)


def filter_of(context: HttpContext) -> StreamFilter:
    """The state of a context."""
    return StreamFilter(
        context.plugin,
        context.id,
        _side(context, REQUEST, context.request_action),
        _side(context, RESPONSE, context.response_action),
    )


def _side(context: HttpContext, direction: int, returned: int) -> FilterSide:
    action = _action(returned)
    if context.deleted:
        return FilterSide(action, False)
    chain = context.stream._chain(direction)
    if context not in chain.filters:  # a local response has replaced the response
        return FilterSide(action, False)
    at = chain.filters.index(context)
    if at not in chain.stopped or chain.aborted:
        return FilterSide(action, False)
    headers, trailers = context.maps[2 * direction], context.maps[2 * direction + 1]
    return FilterSide(
        action,
        True,
        list(headers) if headers is not None and chain.passed <= at else None,
        chain.held() if at == min(chain.stopped) else b"",
        None if trailers is None else list(trailers),
    )


def _action(returned: int) -> Union[HeadersAction, DataAction, Action, int, None]:
    if returned < 0 or returned & 0xFFFF_FFFF == 0xFFFF_FFFF:
        return None
    kind, number = ACTIONS[returned >> PART], returned & 0xFFFF_FFFF
    return kind(number) if number in set(kind) else number

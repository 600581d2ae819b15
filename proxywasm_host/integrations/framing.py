"""Corrects `content-length`: a head waits until the length of its body is known.

A filter that changes a body should remove or correct ``content-length``. Many do not, and Envoy then sends a broken
message. Here a head with a ``content-length`` waits for the first part of the body, if a filter of the chain can
change bodies or has changed the length. Then

* it gets the right length if the body is whole;
* it loses its length if more is to come, because the length is not known yet. If the receiver cannot find the end
  otherwise (HTTP/1.0), the head instead waits for the whole body, up to a limit.

A message without ``content-length`` is not changed. If no filter can change bodies, the sender's length stays, too.
"""

from __future__ import annotations

from typing import Union

from proxywasm_host.integrations.headers import LENGTH, number
from proxywasm_host.integrations.heads import RequestHead, ResponseHead
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.filter_chain import FilterChain

__all__ = ["Head", "Part", "WaitingHead", "content_length", "set_length"]

Head = Union[RequestHead, ResponseHead]
Body = Union[effects.RequestBody, effects.ResponseBody]
Part = Union[Head, Body, effects.RequestTrailers, effects.ResponseTrailers]


def content_length(head: Head) -> int | None:
    """The value of a head's ``content-length``; ``None`` if it is missing or not a number."""
    return None if head.at < 0 else number(head.headers[head.at][1])


def set_length(head: Head, length: int | None) -> None:
    """Replace a head's ``content-length``, if it has one; with ``None``, remove it."""
    if head.at < 0 or length == content_length(head) is not None:
        return
    if length is None:
        del head.headers[head.at]
        head.at = -1
    else:
        head.headers[head.at] = (LENGTH, b"%d" % length)


class WaitingHead:
    """A head that waits for its length, and the parts behind it.

    Args:
        head: a head with a ``content-length`` and a body.
        chain: the stream's chain in this direction.
        came: the length that the message's sender gave.
        keep_unsure: keep the sender's length where the right one is not known, for a receiver with its own framing.
        wait_for: size of the body, in bytes, up to which the head waits for all of it.
    """

    def __init__(self, head: Head, chain: FilterChain, came: int | None, *, keep_unsure: bool, wait_for: int) -> None:
        self._head = head
        self._chain = chain
        self._came = came
        self._keep_unsure = keep_unsure
        self._wait_for = wait_for
        self._body: list[Body] = []
        self._size = 0

    def follow(self, part: Part) -> list[Part] | None:
        """Add a part behind the head. Returns the parts to send now, or ``None`` if the head still waits."""
        if not isinstance(part, (effects.RequestBody, effects.ResponseBody)):
            return [*self._release(None), part]
        self._body.append(part)
        self._size = size = self._size + len(part.data)
        if part.end_stream:
            return self._release(size)
        if self._chain.received == self._came or size < self._wait_for:
            return None  # only the end can follow, or the head waits for the whole body
        return self._release(self._came if self._keep_unsure and size == self._chain.received else None)

    def _release(self, length: int | None) -> list[Part]:
        set_length(self._head, length)
        return [self._head, *self._body]

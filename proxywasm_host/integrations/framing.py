"""Corrects `content-length`: a head waits until the length of its body is known.

A filter that changes a body should remove ``content-length`` (or set it right). Many do not, and Envoy sends a broken
message then. Here a head with a ``content-length`` waits for the first part of the body, if a filter of the chain can
change bodies or has changed the length, and then

* has the right length, if the body is whole;
* goes without it, if more is to come, because the length is not known yet. Only if the receiver cannot tell the end
  otherwise (HTTP/1.0) does the head wait for the whole body, up to a limit.

Messages without ``content-length`` are not changed; nor are messages with the sender's, if no filter can change bodies.
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
    """What its ``content-length`` says; ``None`` if there is none, or it is not a number."""
    return None if head.at < 0 else number(head.headers[head.at][1])


def set_length(head: Head, length: int | None) -> None:
    """Replace its ``content-length``, if it has one; with ``None``, leave it out."""
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
        head: has a ``content-length``, and a body.
        path: the stream's, for this direction.
        came: what the message's sender said of its length.
        keep_unsure: keep the sender's length where the right one is not known, for a receiver that frames otherwise.
        wait_for: bytes of a body of known length that may be waited for, until it is whole.
    """

    def __init__(self, head: Head, path: FilterChain, came: int | None, *, keep_unsure: bool, wait_for: int) -> None:
        self._head = head
        self._path = path
        self._came = came
        self._keep_unsure = keep_unsure
        self._wait_for = wait_for
        self._body: list[Body] = []
        self._size = 0

    def follow(self, part: Part) -> list[Part] | None:
        """Take a part behind the head, and return the parts to send now; ``None`` if the head still waits."""
        if not isinstance(part, (effects.RequestBody, effects.ResponseBody)):
            return [*self._release(None), part]
        self._body.append(part)
        self._size = size = self._size + len(part.data)
        if part.end_stream:
            return self._release(size)
        if self._path.received == self._came or size < self._wait_for:
            return None  # only the end can follow, or it is waited for
        return self._release(self._came if self._keep_unsure and size == self._path.received else None)

    def _release(self, length: int | None) -> list[Part]:
        set_length(self._head, length)
        return [self._head, *self._body]

"""Content-length that is true: headers wait until it is known how long the body will be that follows them.

A filter that changes a body should remove ``content-length`` (or set it right). Many do not, and Envoy sends a broken
message then. Here headers with a ``content-length`` wait for the first part of the body, if a filter of the chain can
change bodies or has changed the length, and then

* have the right length, if the body is whole;
* go without it, if more is to come: how much that will be, nobody knows. Only where the receiver has no other way to
  tell the end (HTTP/1.0) do they wait for all of the body, up to a limit.

Messages without ``content-length`` are not touched, nor those with their sender's if no filter can change bodies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.filter_chain import REQUEST, RESPONSE, FilterChain
from proxywasm_host.runtime.http import HttpStream

__all__ = ["LENGTH", "Framing", "framing_of", "length_of", "lengths_of", "with_length"]

Headers = Union[effects.RequestHeaders, effects.ResponseHeaders]
Body = Union[effects.RequestBody, effects.ResponseBody]
Part = Union[Headers, Body, effects.RequestTrailers, effects.ResponseTrailers]
LENGTH = b"content-length"
DIGITS = 19
"""Of a length: more is no number of bytes."""


class Framing:
    """One message on its way out, whose ``content-length`` may not be true.

    Args:
        path: the stream's, for this direction.
        came: what its sender said of its length.
        keep_unsure: keep the sender's length where the right one is not known, for a receiver that frames otherwise.
        wait_for: bytes of a body of known length that may be waited for, until it is whole.
    """

    def __init__(self, path: FilterChain, came: list[bytes], *, keep_unsure: bool = False, wait_for: int = 0) -> None:
        self._path = path
        self._came = length_of(came)
        self._keep_unsure = keep_unsure
        self._wait_for = wait_for
        self._headers: Headers | None = None
        self._body: list[Body] = []

    def forward(self, part: Part) -> list[Part]:
        """What is to be sent now that this part has come out of the filters. The first are headers."""
        if isinstance(part, (effects.RequestHeaders, effects.ResponseHeaders)):
            self._headers = part
            return []
        if self._headers is None:
            return [part]
        if isinstance(part, (effects.RequestBody, effects.ResponseBody)):
            self._body.append(part)
            if part.end_stream:
                return self._release(self._size())
            if self._path.received == self._came or self._size() < self._wait_for:
                return []  # only the end can follow, or it is waited for
            return self._release(None)
        return [*self._release(None), part]

    def _size(self) -> int:
        return sum(len(each.data) for each in self._body)

    def _release(self, length: int | None) -> list[Part]:
        headers, body = self._headers, self._body
        assert headers is not None  # noqa: S101 - they wait
        if length is None and self._keep_unsure and self._size() == self._path.received:
            length = self._came
        self._headers, self._body = None, []
        if length is None:
            headers.headers = [pair for pair in headers.headers if pair[0] != LENGTH]
        else:
            headers.headers = with_length(headers.headers, length)
        return [headers, *body]


def framing_of(
    stream: HttpStream, part: Headers, came: Iterable[tuple[bytes, bytes]], *, wait_for: int = 0
) -> Framing | None:
    """Who sees to the length of this message, if it must be seen to.

    Args:
        stream: the message's.
        part: headers that have come out of the filters.
        came: headers as their sender sent them.
        wait_for: see `Framing`.
    """
    lengths = [] if part.end_stream else lengths_of(part.headers)
    if not lengths:
        return None
    sent = lengths_of(came)
    if lengths == sent and length_of(lengths) is not None and not stream.changes_bodies:
        return None
    if isinstance(part, effects.RequestHeaders):
        return Framing(stream.chain(REQUEST), sent, keep_unsure=True)
    return Framing(stream.chain(RESPONSE), sent, wait_for=wait_for)


def lengths_of(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The values of ``content-length``."""
    return [value for name, value in headers if name == LENGTH]


def length_of(lengths: list[bytes]) -> int | None:
    """What they say; ``None`` if there is none, several that differ, or something that is no number."""
    if not lengths or lengths.count(lengths[0]) < len(lengths):
        return None
    value = lengths[0]
    return int(value) if value.isdigit() and len(value) <= DIGITS else None


def with_length(headers: HeaderList, length: int) -> HeaderList:
    """Headers that have a content-length, with another, once."""
    at = next(place for place, (name, _) in enumerate(headers) if name == LENGTH)
    rest = [pair for pair in headers[at + 1 :] if pair[0] != LENGTH]
    return [*headers[:at], (LENGTH, b"%d" % length), *rest]

"""Content-length that is true: headers wait until it is known how long the body will be that follows them.

A filter that changes a body should remove ``content-length`` (or set it right). Many do not, and Envoy sends a broken
message then. Here headers with a ``content-length`` of the sender wait for the first part of the body, if a filter of
the chain can change bodies, and then

* have the right length, if the body is whole;
* go without it, if more is to come: how much that will be, nobody knows.

Messages without ``content-length``, or whose filters cannot change bodies, are not touched.
"""

from __future__ import annotations

from typing import Union

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.path import Path

__all__ = ["Framing"]

Headers = Union[effects.RequestHeaders, effects.ResponseHeaders]
Body = Union[effects.RequestBody, effects.ResponseBody]
Part = Union[Headers, Body, effects.RequestTrailers, effects.ResponseTrailers]
LENGTH = b"content-length"


class Framing:
    """One message on its way out.

    Args:
        path: the stream's, for this direction.
        keep_unsure: keep the sender's length where the right one is not known, for a receiver that frames otherwise.
    """

    def __init__(self, path: Path, *, keep_unsure: bool = False) -> None:
        self._path = path
        self._keep_unsure = keep_unsure
        self._headers: Headers | None = None
        self._body: list[Body] = []

    @property
    def waiting(self) -> bool:
        """Whether headers wait for the body."""
        return self._headers is not None

    def forward(self, part: Part) -> list[Part]:
        """What is to be sent now that this part has come out of the filters."""
        if isinstance(part, (effects.RequestHeaders, effects.ResponseHeaders)):
            if part.end_stream or not any(name == LENGTH for name, _ in part.headers):
                return [part]
            self._headers = part
            return []
        if self._headers is None:
            return [part]
        if isinstance(part, (effects.RequestBody, effects.ResponseBody)):
            self._body.append(part)
            if part.end_stream:
                return self._release(sum(len(each.data) for each in self._body))
            return [] if self._path.received == self._declared() else self._release(None)
        return [*self._release(None), part]

    def _declared(self) -> int:
        """What the headers say. That much having come in, only the end can follow."""
        assert self._headers is not None  # noqa: S101 - they wait
        value = next(value for name, value in self._headers.headers if name == LENGTH)
        return int(value) if value.isdigit() and len(value) < 20 else -1

    def _release(self, length: int | None) -> list[Part]:
        headers, body = self._headers, self._body
        assert headers is not None  # noqa: S101 - they wait
        self._headers, self._body = None, []
        if length is not None:
            headers.headers = with_length(headers.headers, length)
        elif not (self._keep_unsure and sum(len(each.data) for each in body) == self._path.received):
            headers.headers = [pair for pair in headers.headers if pair[0] != LENGTH]
        return [headers, *body]


def with_length(headers: HeaderList, length: int) -> HeaderList:
    """Headers that have a content-length, with another."""
    return [(name, b"%d" % length if name == LENGTH else value) for name, value in headers]

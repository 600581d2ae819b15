"""Types of the SDK's arguments and of handlers' results, for type checkers only: packed filters do not contain them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from proxywasm._messages import Response

Data = Union[str, bytes]
"""Bytes, or text, which is encoded in UTF-8."""
HeadersLike = Union[Mapping[str, str], Iterable[tuple[str, str]], None]
"""A dict of headers, pairs of name and value, or None."""
Answer = Union["Response", None, Awaitable[Union["Response", None]]]
"""The result of a handler of headers or trailers, which may be ``async``: None to continue, a `Response` to answer."""
BodyAnswer = Union["Response", str, bytes, None]
"""The result of a handler of a body's part: the replacement, a `Response` to answer, or None to leave it unchanged."""
TcpAnswer = Union[str, bytes, bool, None]
"""The result of a handler of a connection: the data's replacement, False to close it, or None to continue."""

"""What the SDK's functions take and handlers return, for type checkers alone: packed filters do not have this."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from proxywasm._messages import Response

Data = Union[str, bytes]
"""Bytes; text is in UTF-8."""
HeadersLike = Union[Mapping[str, str], Iterable[tuple[str, str]], None]
"""A dict of headers, or pairs of name and value, or none."""
Answer = Union["Response", None, Awaitable[Union["Response", None]]]
"""What a handler of headers or trailers returns: None to go on, a `Response` to answer, or it is ``async``."""
BodyAnswer = Union["Response", str, bytes, None]
"""What a handler of a body's part returns: what to put in its place, a `Response` to answer, or None to leave it."""
TcpAnswer = Union[str, bytes, bool, None]
"""What a handler of a connection returns: what to put in the data's place, False to close it, or None to go on."""

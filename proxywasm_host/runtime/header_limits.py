"""Limits on the headers that a client or an upstream may send. A message beyond them is refused before filters get it.

Headers that filters add have separate, much higher limits, so a client cannot use up a filter's share.

Source: ``max_request_headers_kb`` and ``max_headers_count`` of Envoy, and their defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HeaderLimits", "measure"]


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """Limits of one message's headers, and of its trailers.

    `count` is the number of headers without pseudo headers, `size` the bytes of all names and values. A request beyond
    them is answered with 431, a response is replaced by a 502.

    Raises: TypeError, ValueError.
    """

    count: int = 100
    size: int = 60 * 1024

    def __post_init__(self) -> None:
        for name in ("count", "size"):
            value = getattr(self, name)
            if value.__class__ is not int:
                raise TypeError(f"{name} of HeaderLimits is a whole number, not {value!r}")
            if value < 0:
                raise ValueError(f"{name} of HeaderLimits is {value}, which is less than 0")


def measure(headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, int]:
    """Count and size of headers, in the sense of `HeaderLimits`."""
    count = size = 0
    for name, value in headers:
        count += name[:1] != b":"
        size += len(name) + len(value)
    return count, size

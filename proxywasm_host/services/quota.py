"""Quotas: how many bytes the host may store for guests, and how many it stores."""

from __future__ import annotations

from proxywasm_host.errors import ProxyWasmError

__all__ = ["MIB", "Quota", "QuotaExceeded"]

MIB = 1 << 20


class QuotaExceeded(ProxyWasmError):
    """The host would store more than is allowed. The guest gets INTERNAL_FAILURE, and nothing is evicted."""

    code = "quota_exceeded"


class Quota:
    """A limit of bytes, or ``None`` for no limit. Threads that share a quota need a lock."""

    __slots__ = ("limit", "used", "what")

    def __init__(self, what: str, limit: int | None) -> None:
        self.what = what
        self.limit = limit
        self.used = 0

    def has(self, size: int) -> bool:
        """Whether `size` more bytes fit."""
        return self.limit is None or self.used + size <= self.limit

    def reserve(self, size: int) -> None:
        """Reserve `size` bytes; a negative number releases them. Raises: QuotaExceeded, and then reserves nothing."""
        used = self.used + size
        if self.limit is not None and used > self.limit and size > 0:
            raise QuotaExceeded(
                f"{self.what} have {self.used} bytes, {size} more would be beyond the limit of {self.limit}"
            )
        self.used = used

    def release(self, size: int) -> None:
        """Release `size` bytes."""
        self.used -= size

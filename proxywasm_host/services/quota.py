"""Quotas: how much the host may keep for guests, and how much it keeps."""

from __future__ import annotations

from proxywasm_host.errors import ProxyWasmError

__all__ = ["MIB", "Quota", "QuotaExceeded"]

MIB = 1 << 20


class QuotaExceeded(ProxyWasmError):
    """More would be kept than is allowed. The guest gets INTERNAL_FAILURE, and nothing is evicted."""

    code = "quota_exceeded"


class Quota:
    """So many bytes may be kept of something; ``None`` is no limit. Who shares one between threads has a lock."""

    __slots__ = ("limit", "used", "what")

    def __init__(self, what: str, limit: int | None) -> None:
        self.what = what
        self.limit = limit
        self.used = 0

    def has(self, size: int) -> bool:
        """Whether there is room for so many bytes more."""
        return self.limit is None or self.used + size <= self.limit

    def reserve(self, size: int) -> None:
        """Note that so many bytes more are kept, or that fewer are. Raises: QuotaExceeded, and nothing is noted."""
        used = self.used + size
        if self.limit is not None and used > self.limit and size > 0:
            raise QuotaExceeded(
                f"{self.what} have {self.used} bytes, {size} more would be beyond the limit of {self.limit}"
            )
        self.used = used

    def release(self, size: int) -> None:
        """Note that so many bytes are no longer kept."""
        self.used -= size

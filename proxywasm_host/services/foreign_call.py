"""The type of foreign functions, and the error with which one refuses a call."""

from __future__ import annotations

from collections.abc import Callable

from proxywasm_host.errors import ProxyWasmError

__all__ = ["ForeignCallFailed", "ForeignFunction"]

ForeignFunction = Callable[[bytes], bytes]
"""A function from argument to result, both bytes. It may raise `ForeignCallFailed` with the status for the guest; any
other exception is INTERNAL_FAILURE.
"""


class ForeignCallFailed(ProxyWasmError):
    """Raised by a foreign function to refuse a call. The guest gets `status`; traces have the text as the reason."""

    code = "foreign_call_failed"

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

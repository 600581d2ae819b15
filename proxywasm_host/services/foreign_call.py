"""The type of foreign functions, and the error by which one refuses."""

from __future__ import annotations

from collections.abc import Callable

from proxywasm_host.errors import ProxyWasmError

__all__ = ["ForeignCallFailed", "ForeignFunction"]

ForeignFunction = Callable[[bytes], bytes]
"""Takes the argument's bytes and returns the result's.

It may raise `ForeignCallFailed` with the status for the guest; any other exception is INTERNAL_FAILURE.
"""


class ForeignCallFailed(ProxyWasmError):
    """Raised by a foreign function that refuses: `status` goes to the guest, the text is the reason in traces."""

    code = "foreign_call_failed"

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

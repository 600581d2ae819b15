"""What a plugin does for new streams after its guest has failed.

Source: ``FailurePolicy`` in Envoy's ``wasm.proto``.
"""

from __future__ import annotations

from enum import Enum

from proxywasm_host.errors import not_among

__all__ = ["FailurePolicy"]


class FailurePolicy(Enum):
    """What new streams get after the guest has failed."""

    FAIL_CLOSED = "fail_closed"
    FAIL_OPEN = "fail_open"
    FAIL_RELOAD = "fail_reload"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(not_among("failure policy", value, [policy.value for policy in cls]))

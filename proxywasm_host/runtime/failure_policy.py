"""The handling of new streams after a plugin's guest has failed.

Source: ``FailurePolicy`` in Envoy's ``wasm.proto``.
"""

from __future__ import annotations

from enum import Enum

from proxywasm_host.errors import not_among

__all__ = ["FailurePolicy"]


class FailurePolicy(Enum):
    """The handling of new streams after the guest has failed: see the table in `proxywasm_host.runtime.plugin`."""

    FAIL_CLOSED = "fail_closed"
    FAIL_OPEN = "fail_open"
    FAIL_RELOAD = "fail_reload"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(not_among("failure policy", value, [policy.value for policy in cls]))

"""Shared data, shared queues and metrics for several processes, which `open_shared` chooses."""

from __future__ import annotations

from proxywasm_host.services.shared.bundle import Shared
from proxywasm_host.services.shared.choice import check_shared, open_shared, with_shared

__all__ = ["Shared", "check_shared", "open_shared", "with_shared"]

"""Defaults of carriers: the middleware, `proxywasm serve`, the command line.

Carriers take requests of any client through any filter, so a filter that loops, grows or fails must not harm others.
"""

from __future__ import annotations

from typing import Final

from proxywasm_host.engine.protocol import Limits
from proxywasm_host.runtime.failure_policy import FailurePolicy

__all__ = ["DEADLINE", "FAILURE_POLICY", "LIMITS", "MEMORY", "RELOAD_INTERVAL", "STREAM_IDLE_TIMEOUT"]

MEMORY: Final = 256 << 20
"""Memory of a guest in bytes."""
DEADLINE: Final = 5.0
"""Seconds for a callback."""
LIMITS: Final = Limits(MEMORY, DEADLINE)
FAILURE_POLICY: Final = FailurePolicy.FAIL_RELOAD
RELOAD_INTERVAL: Final = 0.0
"""Seconds until a failed guest may be replaced: the next stream replaces it."""
STREAM_IDLE_TIMEOUT: Final = 300.0
"""Seconds without progress after which a stream times out (Envoy's ``stream_idle_timeout``)."""

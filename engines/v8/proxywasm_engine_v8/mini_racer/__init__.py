"""The route over mini-racer's own C functions: V8 has a thread of its own for each instance."""

from __future__ import annotations

from .route import MiniRacer

__all__ = ["MiniRacer"]

"""The route over mini-racer's own C functions: V8 has a separate thread for each instance."""

from __future__ import annotations

from .route import MiniRacer

__all__ = ["MiniRacer"]

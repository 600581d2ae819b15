"""The route through mini-racer's C functions, which give V8 a separate thread for each instance."""

from __future__ import annotations

from .route import MiniRacer

__all__ = ["MiniRacer"]

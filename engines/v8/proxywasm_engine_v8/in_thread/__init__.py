"""The route on which V8 runs in the calling thread, through the C++ interface that mini-racer's library exports."""

from __future__ import annotations

from .route import InThread

__all__ = ["InThread"]

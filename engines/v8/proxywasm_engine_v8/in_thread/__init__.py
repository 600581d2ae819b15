"""The route on which V8 runs in the calling thread: its C++ interface, as the library of mini-racer exports it."""

from __future__ import annotations

from .route import InThread

__all__ = ["InThread"]

"""A cancel scope that costs almost nothing until another task cancels it.

    interruptible = interruptible_here()
    with interruptible() as running:
        await app(…)            # another task can end this with running.cancel(), like a cancel scope

A scope of anyio costs some microseconds per request; asyncio can cancel a task directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import anyio
from anyio.lowlevel import current_token

__all__ = ["Interruptible", "Task", "goes_on", "interruptible_here"]

Task = asyncio.Task[object]


class Interruptible(Protocol):
    """A context manager around work that may be cancelled."""

    def cancel(self) -> None:
        """Cancel the work. Called by another task while this one waits."""
        ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None: ...


def interruptible_here() -> Callable[[], Interruptible]:
    """The function that makes such context managers for this event loop."""
    return OfAsyncio if isinstance(current_token().native_token, asyncio.AbstractEventLoop) else anyio.CancelScope


def goes_on(task: Task) -> bool:
    """Take back our cancellation of a task. Returns whether the task continues, because nothing else cancelled it."""
    uncancel = getattr(task, "uncancel", None)  # since Python 3.11
    return uncancel is None or not uncancel()


class OfAsyncio:
    """An `Interruptible` for asyncio and uvloop."""

    _cancelled = False
    _task: Task | None = None

    def __enter__(self) -> OfAsyncio:
        self._task = asyncio.current_task()
        return self

    def cancel(self) -> None:
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if not self._cancelled or task is None:
            return False
        return goes_on(task) and kind is not None and issubclass(kind, asyncio.CancelledError)

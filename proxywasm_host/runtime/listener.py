"""Listeners get every callback and hostcall as it happens. Without a listener this costs nothing."""

from __future__ import annotations

from typing import Protocol

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.table import Callback

__all__ = ["Listener", "listeners"]


class Listener(Protocol):
    """Called by a `Host` while guests run, so it must be quick, and must neither raise nor feed events."""

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        """A callback begins; `args` are the guest's arguments, the context's id first."""
        ...

    def returned(self, context: Context, row: Callback, result: int | None, *, failed: bool) -> None:
        """A callback has returned, or has `failed`."""
        ...

    def hostcall(self, context: Context, call: Call) -> None:
        """A hostcall was answered; `context` is the effective context."""
        ...


def listeners(*given: Listener | None) -> Listener | None:
    """Several listeners as one; ``None`` for an empty list."""
    some = [listener for listener in given if listener is not None]
    return some[0] if len(some) == 1 else _Several(some) if some else None


class _Several:
    """Calls several listeners, in order."""

    def __init__(self, some: list[Listener]) -> None:
        self._some = some

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        for listener in self._some:
            listener.callback(context, row, args)

    def returned(self, context: Context, row: Callback, result: int | None, *, failed: bool) -> None:
        for listener in self._some:
            listener.returned(context, row, result, failed=failed)

    def hostcall(self, context: Context, call: Call) -> None:
        for listener in self._some:
            listener.hostcall(context, call)

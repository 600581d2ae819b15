"""The hot part of a `Vm`: calls into the guest, and actions that wait until it returns.

With the C extension (`proxywasm_host.abi.native`), its ``VmBase`` replaces this one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxywasm_host.abi.context import Context, ContextState
from proxywasm_host.abi.native import NATIVE, check_constants

if TYPE_CHECKING:
    from proxywasm_host.runtime.failure import Failure

__all__ = ["STOPPED", "VmBase"]

STOPPED: Final = 0xFFFF_FFFF
"""Result of a callback in which the guest sent a local response. As an unknown action, it stops the iteration
(``stopNextIteration`` in ``wasm.h`` of Envoy's host)."""

check_constants(STOPPED=STOPPED)


class VmBase:
    """A guest that runs one callback at a time. `Vm` adds `ended` and `run_deferred`."""

    def __init__(self, idle: Context, deferred: deque[Callable[[], object]]) -> None:
        self.idle = idle
        """The context of hostcalls while no callback runs, such as those of the guest's start."""
        self.context: Context = idle
        self.deferred = deferred
        self.stop_iteration = False
        self.failure: Failure | None = None
        self.contexts: dict[int, Context] = {}
        self.callbacks: dict[str, Callable[..., Any]] = {}
        """The guest's allowed callbacks, by name without ``proxy_``. The mapping is replaced, never changed."""
        self.tells_end = True
        """Whether callbacks on headers have the parameter ``end_of_stream`` (not in ABI 0.1.0)."""
        self.changes_bodies = False
        """Whether the guest may call a hostcall that changes a body."""
        self.log_before_done = self.await_done = False
        """Flags of the profile."""
        self.next_context = 1

    def new_context_id(self) -> int:
        """An id that no existing context has; never 0 (``allocContextId`` in ``wasm.cc`` of Envoy's host)."""
        while True:
            id = self.next_context
            self.next_context = id + 1 & 0xFFFFFFFF or 1
            if id not in self.contexts:
                return id

    def call(self, context: ContextState, name: str, /, *args: int) -> int | None:
        """Call a callback by name, with `args` as in `enter`. Returns ``None`` if the guest has none, or has failed."""
        callback = self.callbacks.get(name)
        if callback is None or self.failure is not None:
            return None
        return self.enter(context, callback, *args)

    def enter(self, context: ContextState, callback: Callable[..., Any], /, *args: int) -> int:
        """Call one of `Vm.callbacks` for a context; `args` begin with the context's id.

        Returns the guest's result (0 without one), or `STOPPED`. If the guest did not return, `Vm.failure` is set and
        the result has no meaning.
        """
        idle = self.idle
        if self.context is not idle:
            raise RuntimeError("an event was fed to a guest that runs: wait until the current event has returned")
        self.context = context  # type: ignore[assignment]
        try:
            result = callback(*args)
        except BaseException as error:
            result = None
            self.ended(context, callback, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.context = idle
        if self.deferred:
            if self.stop_iteration:
                self.stop_iteration = False
                result = STOPPED
            self.run_deferred()
        return result or 0

    def ended(self, context: Any, callback: Callable[..., Any], error: BaseException, /) -> None:
        """Record the exception that ended a callback."""
        raise NotImplementedError

    def run_deferred(self) -> None:
        """Run the actions that wait for the guest to return."""
        raise NotImplementedError


PythonVmBase = VmBase
if not TYPE_CHECKING and NATIVE is not None:
    VmBase = NATIVE.VmBase

"""An instance: an isolate of its own, and closures over it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from proxywasm_host.engine.protocol import HostFunction, Instance, Limits, LinkError, Memory, Trap, TrapKind

from . import traps
from .bridge import FAILED
from .crossings import compile_link
from .deadline import Watch
from .errors import another_thread, closed
from .isolate import Isolate, Thrown
from .reservation import Reservation

if TYPE_CHECKING:
    from .binary import Binary
    from .module import V8Module

__all__ = ["MovingMemory", "V8Instance", "V8Memory"]

_PAGE = 65536


class Pending:
    """What a host function has raised. Host functions know this alone, and so make no cycle with their isolate."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def raised(self, error: BaseException) -> None:
        """Keep what a host function raised."""
        self.error = error

    def take(self) -> BaseException | None:
        """What a host function raised, asked once."""
        error, self.error = self.error, None
        return error


class Underway:
    """What is to be known of calls that are under way in one instance."""

    __slots__ = ("_binary", "_isolate", "_pending", "watch")

    def __init__(self, isolate: Isolate, binary: Binary, pending: Pending) -> None:
        self._isolate = isolate
        self._binary = binary
        self._pending = pending
        self.watch: Watch | None = None

    def problem(self, result: int | None, nested: bool) -> BaseException:
        """What to raise after a call that has left `result`, and something else than an answer."""
        isolate, watch = self._isolate, self.watch
        error = self._pending.take()
        expired, full = watch is not None and watch.take_expired(), isolate.full
        if result is None or expired or full:
            isolate.full = False
            if nested:
                isolate.recover()
                if watch is not None and expired:
                    watch.strike()
            else:
                with isolate.entered():
                    isolate.recover()
        failed, isolate.page[FAILED] = isolate.page[FAILED], 0
        if error is not None:
            return error
        if full:
            return Trap(TrapKind.MEMORY_LIMIT, "the guest has filled V8's heap")
        if watch is not None and expired:
            return watch.trap(traps.frames(watch.frames, self._binary))
        if not failed:
            return Trap(TrapKind.STACK_OVERFLOW)  # before the glue could catch it
        return traps.trap(isolate.failure(), self._binary)

    def recover(self, outermost: bool) -> None:
        """Leave nothing behind of a call that Python itself has ended, for example by a KeyboardInterrupt."""
        isolate, library = self._isolate, self._isolate.library
        self._pending.take()
        if self.watch is not None:
            self.watch.take_expired()
        if not isolate.pointer or not library.locked(isolate.pointer):
            return
        isolate.page[FAILED] = 0
        isolate.recover()
        if outermost:
            if self.watch is not None:
                self.watch.until = None
            isolate.levels[0] = isolate.scope[1] = isolate.scope[0] = 0
            library.drop_handles(isolate.at, isolate.at)
            if library.isolate_is_used(isolate.pointer):
                library.leave(isolate.at)
            library.unlock(isolate.locker_at)


class V8Memory:
    """Linear memory as a view of its bytes where they are. They never move, see `Reservation`."""

    __slots__ = ("_base", "_isolate", "view")

    def __init__(self, isolate: Isolate) -> None:
        self._isolate: Isolate | None = isolate
        self._base = 0
        self.view = memoryview(bytearray())
        self.refresh()

    def refresh(self) -> bool:
        """Make `view` show the whole of the memory. Returns whether it had grown."""
        if self._isolate is None:
            return False
        base, size = self._isolate.memory()
        if size == len(self.view):
            return False
        if self._base and base != self._base:
            raise RuntimeError("V8 has moved a memory that it had reserved room for")
        self._base = base
        self.view = memoryview((ctypes.c_ubyte * size).from_address(base)).cast("B")
        return True

    def release(self) -> None:
        """Let go of the bytes: `view` becomes empty, and a view taken before raises ``ValueError`` when used."""
        view, self.view, self._isolate = self.view, memoryview(bytearray()), None
        view.release()


class MovingMemory:
    """Linear memory that may move when it grows: each `view` is a new one, at the price of a call to V8."""

    __slots__ = ("_fixed", "_isolate")

    def __init__(self, isolate: Isolate) -> None:
        self._isolate: Isolate | None = isolate
        self._fixed = V8Memory(isolate)

    @property
    def view(self) -> memoryview:
        """The whole of the memory."""
        self.refresh()
        return self._fixed.view

    def refresh(self) -> bool:
        """Make `view` show the whole of the memory. Returns whether it had grown."""
        if self._isolate is None:
            return False
        size = len(self._fixed.view)
        self._fixed = V8Memory(self._isolate)
        return len(self._fixed.view) != size

    def release(self) -> None:
        """Let go of the bytes, as `V8Memory.release`."""
        self._isolate = None
        self._fixed.release()


class V8Instance:
    """A running module. All of its guest functions are closures over one set of cells, see `crossings`."""

    __slots__ = ("__weakref__", "_functions", "_isolate", "_memory", "_module", "_shut", "_watch", "memory")

    def __init__(
        self,
        module: V8Module,
        functions: Sequence[HostFunction],
        limits: Limits,
        bind: Callable[[Instance], None] | None,
    ) -> None:
        self.memory: Memory | None = None
        self._memory: V8Memory | MovingMemory | None = None
        self._module = module
        reservation = Reservation(module.binary.memories, limits.memory, module.v8)
        self._isolate = isolate = Isolate(module.v8)
        isolate.keep(reservation)
        pending = Pending()
        underway = Underway(isolate, module.binary, pending)
        self._watch = None
        if limits.deadline is not None:
            self._watch = underway.watch = Watch(isolate, limits.deadline, pending.raised)
        link = compile_link(
            tuple(module.callees.values()),
            tuple(function.type for function in functions),
            watched=self._watch is not None,
        )
        callees: list[Any] = []
        calls, hosts, self._shut = link(
            [function.call for function in functions],
            isolate,
            callees,
            pending.raised,
            underway.recover,
            underway.problem,
            _refuse,
            another_thread,
            isolate.limit_stack,
            self._watch,
        )
        self._functions: dict[str, Callable[..., Any]] = dict(zip(module.callees, calls, strict=True))
        try:
            self._begin(callees, hosts, reservation, bind)
        except BaseException:
            self.close()
            raise

    def function(self, name: str) -> Callable[..., Any] | None:
        """The exported function `name`, or ``None``. Raises: TypeError if it has values that are no numbers."""
        if name not in self._module.callable_exports:
            self._module.refuse_other_types(name)
            return None
        return self._functions[name]

    def close(self) -> None:
        """Free the isolate. From inside a host function: calls are refused at once, the collector frees it.

        Raises: RuntimeError if another thread is inside.
        """
        nobody_inside = self._shut()
        if self._memory is not None:
            self._memory.release()
        if nobody_inside:
            if self._watch is not None:
                self._watch.end()
            self._isolate.dispose()

    def _begin(
        self,
        callees: list[Any],
        hosts: Sequence[Any],
        reservation: Reservation,
        bind: Callable[[Instance], None] | None,
    ) -> None:
        module, binary = self._module, self._module.binary
        plan = {
            "memories": reservation.descriptors,
            "visible": binary.exported_memory or 0,
            "names": list(module.callees),
        }
        self._isolate.limit_stack()
        try:
            callees += self._isolate.instantiate(plan, module.codes, hosts)
        except Thrown as thrown:
            raise traps.instantiation_failure(thrown) or LinkError(thrown.message) from None
        if binary.exported_memory is not None:
            self._memory = V8Memory(self._isolate) if reservation.is_safe else MovingMemory(self._isolate)
            self.memory = cast("Memory", self._memory)  # a property will do where nobody sets it
        if bind is not None:
            bind(self)
        if binary.start_name:
            self._functions[binary.start_name]()


def _refuse(*_: object) -> None:
    raise closed()

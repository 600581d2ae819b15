"""A running instance: an isolate and the functions that call into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from proxywasm_host.engine.protocol import HostFunction, Instance, Limits, LinkError, Memory, Trap, TrapKind

from . import traps
from .address_space import FOR_AN_ISOLATE, lacking
from .memory import MovingMemory, V8Memory
from .reservation import Reservation
from .routes import Link, Thrown

if TYPE_CHECKING:
    from .module import V8Module

__all__ = ["V8Instance"]


class V8Instance:
    """A running module. Its guest functions share their state, see `trampolines`."""

    __slots__ = ("__weakref__", "_calls", "_functions", "_isolate", "_memory", "_module", "_shut", "memory")

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
        route = module.route
        if reason := lacking(FOR_AN_ISOLATE):
            raise Trap(TrapKind.MEMORY_LIMIT, reason)
        reservation = Reservation(module.binary.memories, limits.memory, route.room, follows=route.follows)
        self._isolate = isolate = route.isolate()
        isolate.keep(reservation)
        self._calls = isolate.calls(module.binary, limits.deadline)
        link = self._calls.link(tuple(module.callees.values()), functions)
        self._shut = link.shut
        self._functions: dict[str, Callable[..., Any]] = dict(zip(module.callees, link.guests, strict=True))
        try:
            self._begin(link, reservation, bind)
        except BaseException:
            self.close()
            raise

    def function(self, name: str) -> Callable[..., Any] | None:
        """The exported function `name`, or ``None``. Raises: TypeError if its type has values other than numbers."""
        if name not in self._module.callable_exports:
            self._module.refuse_other_types(name)
            return None
        return self._functions[name]

    def close(self) -> None:
        """Free the isolate. Inside a host function, refuse further calls and leave the rest to the garbage collector.

        Raises: RuntimeError if another thread is inside.
        """
        nobody_inside = self._shut()
        if self._memory is not None:
            self._memory.release()
        if nobody_inside:
            self._calls.end()
            self._isolate.dispose()

    def _begin(self, link: Link, reservation: Reservation, bind: Callable[[Instance], None] | None) -> None:
        module, binary = self._module, self._module.binary
        plan = {
            "memories": reservation.descriptors,
            "visible": binary.exported_memory or 0,
            "names": list(module.callees),
            "large": [] if module.is_optimised else list(binary.optimised),
            "measure": binary.exported_memory is not None,
        }
        try:
            link.connect(self._isolate.instantiate(plan, module.codes, link.hosts))
            module.is_optimised = True
        except Thrown as thrown:
            raise traps.instantiation_failure(thrown) or LinkError(thrown.message) from None
        if binary.exported_memory is not None:
            self._memory = V8Memory(self._isolate) if reservation.is_safe else MovingMemory(self._isolate)
            self.memory = cast("Memory", self._memory)  # a property suffices, because nothing sets it
        if bind is not None:
            bind(self)
        if binary.start_name:
            self._functions[binary.start_name]()

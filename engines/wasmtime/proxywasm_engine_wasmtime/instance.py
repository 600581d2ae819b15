"""The fast route: an instance that is reached through Wasmtime's C API."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import wasmtime
import wasmtime._ffi as ffi

from proxywasm_host.engine.protocol import HostFunction, Instance, Limits, Memory, Trap, TrapKind

from . import traps
from .capi import CApi, HostCallback, address_of
from .crossings import compile_link
from .deadline import NEVER, Watch
from .errors import another_thread, closed, link_failure

if TYPE_CHECKING:
    from .module import WasmtimeModule

__all__ = ["FastInstance", "FastMemory"]

_HOST_RAISED = b"a host function raised an exception"


OTHER_LIMITS = (1_000_000, -1, 16, 1)
"""Table elements, instances, tables and memories of a guest whose memory is limited: they take memory as well."""


class Underway:
    """What the host functions of one instance share: what they raised, and what is to happen when the first is called.

    It is apart from `Store` so that store, callbacks and host functions make no reference cycle.
    """

    __slots__ = ("_api", "error", "starting")

    def __init__(self, api: CApi, starting: Callable[[int], None]) -> None:
        self._api = api
        self.error: BaseException | None = None
        self.starting: Callable[[int], None] | None = starting

    def raised(self, error: BaseException) -> int:
        """Keep what a host function raised; return the trap that ends the guest's call."""
        self.error = error
        trap: int = self._api.wasmtime_trap_new(_HOST_RAISED, len(_HOST_RAISED))
        return trap

    def interrupted(self, error: BaseException) -> None:
        """Keep what was raised while guest code was stopped for a look at the clock."""
        self.error = error

    def arrived(self, caller: int) -> None:
        """A host function is called with its slots at a new place: the first time, the instance is just starting."""
        if self.starting is not None:
            self.starting(caller)


class Store:
    """A ``wasmtime_store_t`` and what has to live as long."""

    __slots__ = ("_delete", "_kept", "_underway", "api", "context", "pointer", "trap", "watch")

    def __init__(self, api: CApi, engine: wasmtime.Engine, underway: Underway) -> None:
        self.api = api
        self._delete = api.wasmtime_store_delete
        self._underway = underway
        self._kept: list[Any] = [engine]
        self.pointer: int | None = api.wasmtime_store_new(address_of(engine.ptr()), None, None)
        self.context: int = api.wasmtime_store_context(self.pointer)
        self.trap = ctypes.c_void_p()
        self.watch: Watch | None = None

    def keep(self, callback: Any) -> None:
        """Keep `callback` alive as long as the guest may call it."""
        self._kept.append(callback)

    def failed(self, error: int | None) -> BaseException:
        """What to raise after a call that left `error`, or a trap in its place."""
        api, trap, pending, watch = self.api, self.trap.value, self._underway.error, self.watch
        if pending is not None:
            self.forget()
            if error:
                api.wasmtime_error_delete(error)
            return pending
        if trap:
            self.trap.value = None
            return traps.take_trap(api, trap)
        message, frames = traps.take_error(api, error or 0)
        if watch is not None and watch.take_expired():
            return Trap(TrapKind.DEADLINE, f"deadline of {watch.seconds:g} s exceeded", frames)
        return Trap(TrapKind.OTHER, traps.cause(message), frames)

    def forget(self) -> None:
        """Drop what a call has left that ended in a Python exception."""
        if self.trap.value:
            self.api.wasm_trap_delete(self.trap.value)
            self.trap.value = None
        self._underway.error = None
        if self.watch is not None:
            self.watch.take_expired()

    def delete(self) -> None:
        """Free the store, with its instance and memory."""
        pointer, self.pointer = self.pointer, None
        if pointer:
            self._delete(pointer)
        self._kept.clear()

    def __del__(self) -> None:
        self.delete()


class FastMemory:
    """Linear memory as a view of its bytes where they are; they never move (see ``engine._config``)."""

    __slots__ = ("_base", "_size", "view")

    def __init__(self, store: Store, memory: Any) -> None:
        handle, context, size = ctypes.pointer(memory), store.context, store.api.wasmtime_memory_data_size
        self._base: int = store.api.wasmtime_memory_data(context, handle)
        self._size: Callable[[], int] | None = lambda: int(size(context, handle))
        self.view = memoryview(bytearray())
        self.refresh()

    def refresh(self) -> bool:
        """Make `view` show the whole of the memory. Returns whether it had grown."""
        size = self._size() if self._size else 0
        if size == len(self.view):
            return False
        self.view = memoryview((ctypes.c_ubyte * size).from_address(self._base)).cast("B")
        return True

    def release(self) -> None:
        """Let go of the bytes: `view` becomes empty, and a view taken before raises ``ValueError`` when used."""
        view, self.view, self._size = self.view, memoryview(bytearray()), None
        view.release()


class FastInstance:
    """A running module. All of its guest functions are closures over one set of cells, see `crossings`."""

    __slots__ = (
        "__weakref__",
        "_bind",
        "_functions",
        "_memory",
        "_module",
        "_places",
        "_shut",
        "_store",
        "_underway",
        "memory",
    )

    def __init__(
        self,
        api: CApi,
        module: WasmtimeModule,
        functions: Sequence[HostFunction],
        limits: Limits,
        bind: Callable[[Instance], None] | None,
    ) -> None:
        self.memory: Memory | None = None
        self._memory: FastMemory | None = None
        self._module = module
        self._bind = bind
        self._underway = underway = Underway(api, self._arrived)
        self._store = store = Store(api, module.engine, underway)
        if limits.memory is not None:
            api.wasmtime_store_limiter(store.pointer, limits.memory, *OTHER_LIMITS)
        if module.interruptible:
            api.wasmtime_context_set_epoch_deadline(store.context, NEVER)
        if limits.deadline is not None:
            store.watch = Watch(api, store.pointer, limits.deadline, module.ticker, underway.interrupted)
        guests = module.callable_exports
        link = compile_link(
            tuple(guests.values()), tuple(function.type for function in functions), watched=store.watch is not None
        )
        trap = store.trap
        calls, places, hosts, self._shut = link(
            [function.call for function in functions],
            api.wasmtime_func_call_unchecked,
            ctypes.byref(ctypes.c_char.from_address(store.context)),
            trap,
            ctypes.byref(trap),
            store.failed,
            store.forget,
            underway.raised,
            underway.arrived,
            _refuse,
            another_thread,
            store.watch,
        )
        self._functions = dict(zip(guests, calls, strict=True))
        self._places = dict(zip(guests, places, strict=True))
        self._instantiate(hosts)

    def function(self, name: str) -> Callable[..., Any] | None:
        """The exported function `name`, or ``None``. Raises: TypeError if it has values that are no numbers."""
        call = self._functions.get(name)
        if call is None:
            self._module.refuse_other_types(name)
        return call

    def close(self) -> None:
        """Free the store. From inside a host function: calls are refused at once, the store is freed by the collector.

        Raises: RuntimeError if another thread is inside.
        """
        nobody_inside = self._shut()
        if self._memory is not None:
            self._memory.release()
        if nobody_inside:
            self._store.delete()

    def _instantiate(self, hosts: Sequence[Callable[..., Any]]) -> None:
        store, api = self._store, self._store.api
        imports = (ffi.wasmtime_extern_t * max(len(hosts), 1))()
        for external, host, type in zip(imports, hosts, self._module.import_types, strict=False):
            callback = HostCallback(host)
            store.keep(callback)
            external.kind = ffi.WASMTIME_EXTERN_FUNC.value
            made = ctypes.addressof(external.of)
            api.wasmtime_func_new_unchecked(store.context, address_of(type.ptr()), callback, None, None, made)
        instance = ffi.wasmtime_instance_t()
        if store.watch is not None:
            store.watch.enter()
        error = api.wasmtime_instance_new(
            store.context,
            address_of(self._module.module.ptr()),
            ctypes.byref(imports),
            len(hosts),
            ctypes.byref(instance),
            ctypes.byref(store.trap),
        )
        if error or store.trap.value:
            self._fail(error)
        if self._underway.starting is not None:
            at = ctypes.byref(instance)
            self._attach(lambda *wanted: bool(api.wasmtime_instance_export_get(store.context, at, *wanted)))

    def _fail(self, error: int | None) -> None:
        failure = self._store.failed(error)
        self.close()
        try:
            raise link_failure(failure) or failure
        finally:
            del failure  # no reference cycle with its own traceback

    def _arrived(self, caller: int) -> None:
        """The start function calls a host function: what it needs can be had from its caller already."""
        api = self._store.api
        self._attach(lambda *wanted: bool(api.wasmtime_caller_export_get(caller, *wanted)))

    def _attach(self, get: Callable[[bytes, int, Any], bool]) -> None:
        self._underway.starting = None
        external = ffi.wasmtime_extern_t()
        for name, place in self._places.items():
            encoded = name.encode()
            if get(encoded, len(encoded), ctypes.byref(external)):
                ctypes.memmove(place, ctypes.addressof(external.of), ctypes.sizeof(place))
        if self._module.has_memory and get(b"memory", 6, ctypes.byref(external)):
            self.memory = self._memory = FastMemory(self._store, ffi.wasmtime_memory_t.from_buffer_copy(external.of))
        bind, self._bind = self._bind, None
        if bind is not None:
            bind(self)


def _refuse(*_: object) -> None:
    raise closed()

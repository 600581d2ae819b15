"""The fast routes: an instance behind Wasmtime's C API, which ctypes or our C extension calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import wasmtime
import wasmtime._ffi as ffi

from proxywasm_host.engine.adapter import memory_capsule
from proxywasm_host.engine.protocol import FunctionType, HostFunction, Instance, Limits, Memory, Trap, TrapKind

from . import traps
from .capi import CApi, DeadlineCallback, HostCallback, address_of
from .deadline import NEVER, Watch
from .errors import another_thread, closed, link_failure
from .making import making
from .trampolines import compile_link

if TYPE_CHECKING:
    from .module import WasmtimeModule

__all__ = ["MEMORY_ABI", "FastInstance", "FastMemory"]

MEMORY_ABI = 1
"""The version of ``proxywasm_host.h`` that defines the layout of `FastMemory._range`, a ``Proxywasm_memory``."""
_HOST_RAISED = b"a host function raised an exception"


OTHER_LIMITS = (1_000_000, -1, 16, 1)
"""Limits of table elements, instances (unlimited), tables and memories, for guests with a memory limit."""


class Store:
    """A ``wasmtime_store_t``, and the objects that must exist as long as it does."""

    __slots__ = ("_delete", "_kept", "_making", "api", "context", "pointer")

    def __init__(self, api: CApi, engine: wasmtime.Engine) -> None:
        self.api = api
        self._delete, self._making = api.wasmtime_store_delete, making  # for the end of the interpreter
        self._kept: list[Any] = [engine]
        self.pointer: int | None = api.wasmtime_store_new(address_of(engine.ptr()), None, None)
        self.context: int = api.wasmtime_store_context(self.pointer)

    def keep(self, callback: Any) -> None:
        """Keep `callback` until the store is freed."""
        self._kept.append(callback)

    def delete(self) -> None:
        """Free the store, with its instance and memory."""
        pointer, self.pointer = self.pointer, None
        if pointer:
            with self._making.own:
                self._delete(pointer)
        self._kept.clear()

    def __del__(self) -> None:
        self.delete()


def _failure(api: CApi, error: int, trap: int, deadline: float | None) -> Trap:
    """The exception for a call that left an error or a trap. `deadline` is set if the deadline has ended the call."""
    if trap:
        return traps.take_trap(api, trap)
    message, frames = traps.take_error(api, error)
    if deadline is not None:
        return Trap(TrapKind.DEADLINE, f"deadline of {deadline:g} s exceeded", frames)
    return Trap(TrapKind.OTHER, traps.cause(message), frames)


class Trampolines(Protocol):
    """The functions that enter and leave a guest."""

    functions: dict[str, Callable[..., Any]]
    """The guest's functions by name."""
    places: dict[str, int]
    """For each name, the address of 16 bytes for its ``wasmtime_func_t``, which `FastInstance` fills in."""
    hosts: Sequence[tuple[Any, int | None]]
    """A callback and its environment for each host function."""

    def instantiate(self, module: int, imports: Any, count: int, instance: Any) -> None:
        """Call ``wasmtime_instance_new``. Raises what the start function and its host functions raise."""

    def shut(self) -> bool:
        """Refuse further calls. Returns whether no call is active. Raises: RuntimeError if another thread is inside."""


class Underway:
    """State that the host functions of one instance share: an exception, and a callback for the first call.

    It is separate from `CtypesTrampolines` so that callbacks and host functions make no reference cycle.
    """

    __slots__ = ("_api", "error", "starting")

    def __init__(self, api: CApi, starting: Callable[[int], None]) -> None:
        self._api = api
        self.error: BaseException | None = None
        self.starting: Callable[[int], None] | None = starting

    def raised(self, error: BaseException) -> int:
        """Store the exception of a host function. Returns the trap that ends the guest's call."""
        self.error = error
        trap: int = self._api.wasmtime_trap_new(_HOST_RAISED, len(_HOST_RAISED))
        return trap

    def interrupted(self, error: BaseException) -> None:
        """Store an exception that was raised while guest code was interrupted to check the time."""
        self.error = error

    def arrived(self, caller: int) -> None:
        """Handle a call of a host function with slots at a new address. At the first one, the instance is starting."""
        if self.starting is not None:
            starting, self.starting = self.starting, None
            starting(caller)


class _Outcome:
    """The state that a call through ctypes leaves."""

    __slots__ = ("_api", "_store", "_underway", "trap", "watch")

    def __init__(self, store: Store, underway: Underway, watch: Watch | None) -> None:
        self._api = store.api
        self._store = store  # kept for guest functions, which refer to this object
        self._underway = underway
        self.trap = ctypes.c_void_p()
        self.watch = watch

    def failed(self, error: int | None) -> BaseException:
        """The exception for a call that left `error`, or a trap instead."""
        api, trap, pending, watch = self._api, self.trap.value, self._underway.error, self.watch
        if pending is not None:
            self.forget()
            if error:
                api.wasmtime_error_delete(error)
            return pending
        self.trap.value = None
        expired = not trap and watch is not None and watch.take_expired()
        return _failure(api, error or 0, trap or 0, watch.seconds if watch is not None and expired else None)

    def forget(self) -> None:
        """Drop the state of a call that has ended with a Python exception."""
        if self.trap.value:
            self._api.wasm_trap_delete(self.trap.value)
            self.trap.value = None
        self._underway.error = None
        if self.watch is not None:
            self.watch.take_expired()


class CtypesTrampolines:
    """Trampolines through ctypes, see `trampolines`."""

    def __init__(
        self,
        store: Store,
        module: WasmtimeModule,
        functions: Sequence[HostFunction],
        deadline: float | None,
        arrived: Callable[[int], None],
    ) -> None:
        api = self._api = store.api
        self._store = store
        self._underway = underway = Underway(api, arrived)
        watch = None
        if deadline is not None:
            watch = Watch(api, store.pointer, deadline, module.ticker, underway.interrupted)
        self._outcome = outcome = _Outcome(store, underway, watch)
        exports = module.callable_exports
        outwards = tuple(dict.fromkeys(exports.values()))
        inwards = tuple(dict.fromkeys(function.type for function in functions))
        link = compile_link(outwards, inwards, watched=watch is not None)
        make_guest, make_host, self._shut = link(
            api.wasmtime_func_call_unchecked,
            ctypes.byref(ctypes.c_char.from_address(store.context)),
            outcome.trap,
            ctypes.byref(outcome.trap),
            outcome.failed,
            outcome.forget,
            underway.raised,
            underway.arrived,
            _refuse,
            another_thread,
            watch,
        )
        guests = dict(zip(outwards, make_guest, strict=True))
        hosts = dict(zip(inwards, make_host, strict=True))
        made = {name: guests[type]() for name, type in exports.items()}
        self.functions = {name: call for name, (call, _) in made.items()}
        self._kept = [place for _, place in made.values()]
        self.places = {name: ctypes.addressof(place) for name, (_, place) in made.items()}
        callbacks = [HostCallback(hosts[function.type](function.call)) for function in functions]
        store.keep((callbacks, watch))
        self.hosts: Sequence[tuple[Any, int | None]] = [(callback, None) for callback in callbacks]

    def instantiate(self, module: int, imports: Any, count: int, instance: Any) -> None:
        """See `Trampolines.instantiate`."""
        outcome = self._outcome
        if outcome.watch is not None:
            outcome.watch.enter()
        error = self._api.wasmtime_instance_new(
            self._store.context,
            module,
            ctypes.byref(imports),
            count,
            ctypes.byref(instance),
            ctypes.byref(outcome.trap),
        )
        if error or outcome.trap.value:
            failure = outcome.failed(error)
            try:
                raise failure
            finally:
                del failure  # no reference cycle with its own traceback
        self._underway.starting = None

    def shut(self) -> bool:
        """See `Trampolines.shut`."""
        return self._shut()


_LETTERS = {"i32": "i", "i64": "I", "f32": "f", "f64": "F"}


class NativeTrampolines:
    """Trampolines in C, see ``native/``."""

    def __init__(
        self,
        store: Store,
        module: WasmtimeModule,
        functions: Sequence[HostFunction],
        deadline: float | None,
        arrived: Callable[[int], None],
    ) -> None:
        api, native = store.api, store.api.native

        def failed(error: int, trap: int, expired: int) -> Trap:
            return _failure(api, error, trap, deadline if expired else None)

        ticker = api.native_ticker if module.interruptible else None
        seconds = -1.0 if deadline is None else deadline
        self._trampolines = made = native.Trampolines(store.context, store, failed, arrived, ticker, seconds)
        if ticker is not None:
            api.wasmtime_context_set_epoch_deadline(store.context, 1)
            api.wasmtime_store_epoch_deadline_callback(
                store.pointer, DeadlineCallback(native.EPOCH_REACHED), id(made), None
            )
        self.functions: dict[str, Callable[..., Any]] = {}
        self.places: dict[str, int] = {}
        for name, type in module.callable_exports.items():
            self.functions[name], self.places[name] = made.guest(*_letters(type))
        called = HostCallback(native.HOST_CALLED)
        self.hosts: Sequence[tuple[Any, int | None]] = [
            (called, made.host(function.call, *_letters(function.type))) for function in functions
        ]
        self.shut: Callable[[], bool] = made.shut

    def instantiate(self, module: int, imports: Any, count: int, instance: Any) -> None:
        """See `Trampolines.instantiate`."""
        self._trampolines.instantiate(module, ctypes.addressof(imports), count, ctypes.addressof(instance))


def _letters(type: FunctionType) -> tuple[str, str]:
    return "".join(map(_LETTERS.__getitem__, type.params)), "".join(map(_LETTERS.__getitem__, type.results))


class FastMemory:
    """A view of linear memory, which never moves (see ``engine._config``)."""

    __slots__ = ("_base", "_range", "_size", "_store", "native_range", "view")

    def __init__(self, store: Store, memory: Any) -> None:
        self._store = store  # owns the bytes
        handle, context, size = ctypes.pointer(memory), store.context, store.api.wasmtime_memory_data_size
        self._base: int = store.api.wasmtime_memory_data(context, handle)
        self._size: Callable[[], int] | None = lambda: int(size(context, handle))
        self._range = (ctypes.c_uint64 * 2)(self._base, 0)
        self.native_range = memory_capsule(ctypes.addressof(self._range), MEMORY_ABI)
        self.view = memoryview(bytearray())
        self.refresh()

    def refresh(self) -> bool:
        """Extend `view` to the whole memory. Returns whether the memory has grown."""
        size = self._size() if self._size else 0
        if size == len(self.view):
            return False
        self._range[1] = size
        self.view = memoryview((ctypes.c_ubyte * size).from_address(self._base)).cast("B")
        return True

    def release(self) -> None:
        """Release the bytes: `view` becomes empty, and earlier views raise ``ValueError`` when used."""
        view, self.view, self._size = self.view, memoryview(bytearray()), None
        self._range[1] = 0
        view.release()


class FastInstance:
    """A running module."""

    __slots__ = (
        "__weakref__",
        "_attached",
        "_bind",
        "_functions",
        "_memory",
        "_module",
        "_store",
        "_trampolines",
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
        self._attached = False
        self._store = store = Store(api, module.engine)
        if limits.memory is not None:
            api.wasmtime_store_limiter(store.pointer, limits.memory, *OTHER_LIMITS)
        if module.interruptible:
            api.wasmtime_context_set_epoch_deadline(store.context, NEVER)
        trampolines = NativeTrampolines if api.native is not None else CtypesTrampolines
        self._trampolines: Trampolines = trampolines(store, module, functions, limits.deadline, self._arrived)
        self._functions = self._trampolines.functions
        self._instantiate()

    def function(self, name: str) -> Callable[..., Any] | None:
        """The exported function `name`, or ``None``. Raises: TypeError if its type has values other than numbers."""
        call = self._functions.get(name)
        if call is None:
            self._module.refuse_other_types(name)
        return call

    def close(self) -> None:
        """Free the store. Inside a host function, refuse further calls and leave the rest to the garbage collector.

        Raises: RuntimeError if another thread is inside.
        """
        nobody_inside = self._trampolines.shut()
        if self._memory is not None:
            self._memory.release()
        if nobody_inside:
            self._store.delete()

    def _instantiate(self) -> None:
        store, api, hosts = self._store, self._store.api, self._trampolines.hosts
        imports = (ffi.wasmtime_extern_t * max(len(hosts), 1))()
        for external, (callback, environment), type in zip(imports, hosts, self._module.import_types, strict=False):
            external.kind = ffi.WASMTIME_EXTERN_FUNC.value
            made = ctypes.addressof(external.of)
            api.wasmtime_func_new_unchecked(store.context, address_of(type.ptr()), callback, environment, None, made)
        instance = ffi.wasmtime_instance_t()
        try:
            self._trampolines.instantiate(address_of(self._module.module.ptr()), imports, len(hosts), instance)
        except Trap as trap:
            self.close()
            raise link_failure(trap) or trap from None
        except BaseException:
            self.close()
            raise
        if not self._attached:
            at = ctypes.byref(instance)
            self._attach(lambda *wanted: bool(api.wasmtime_instance_export_get(store.context, at, *wanted)))

    def _arrived(self, caller: int) -> None:
        """Handle the first call of a host function, by the start function: its caller already has the exports."""
        api = self._store.api
        if not self._attached:
            self._attach(lambda *wanted: bool(api.wasmtime_caller_export_get(caller, *wanted)))

    def _attach(self, get: Callable[[bytes, int, Any], bool]) -> None:
        self._attached = True
        external = ffi.wasmtime_extern_t()
        for name, place in self._trampolines.places.items():
            encoded = name.encode()
            if get(encoded, len(encoded), ctypes.byref(external)):
                ctypes.memmove(place, ctypes.addressof(external.of), 16)
        if self._module.has_memory and get(b"memory", 6, ctypes.byref(external)):
            self.memory = self._memory = FastMemory(self._store, ffi.wasmtime_memory_t.from_buffer_copy(external.of))
        bind, self._bind = self._bind, None
        if bind is not None:
            bind(self)


def _refuse(*_: object) -> None:
    raise closed()

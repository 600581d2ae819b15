"""The protocol of WebAssembly engines: everything that an adapter has to provide.

Rules of this module:

* It knows WebAssembly, not Proxy-Wasm: no hostcall, status or context is named here.
* Values cross as plain ``int``: i32 and i64 are *unsigned* on their way to the host (0 … 2³²-1, 0 … 2⁶⁴-1); on
  their way to the guest any ``int`` is taken modulo its width. f32 and f64 cross as ``float``.
* An engine's own exceptions never leave the adapter: compiling raises ``InvalidModule``, instantiating ``LinkError``
  or ``Trap``, calling ``Trap``.
* An exception raised by a host function ends the guest's call and comes out of the outermost call unchanged.
* One instance serves one thread at a time, whichever that is. While one is inside (in the guest, or in a host function
  that the guest called), a call from another one raises ``RuntimeError``, and so does closing. Calls nest: host →
  guest → host → guest. Modules and engines serve any number of threads.
* After ``os.fork()`` all that was opened before goes on in the child process, if the engine has the capability
  ``fork``; otherwise using it there raises ``RuntimeError`` that says so and what to do.

An adapter is a class with the attributes and methods of `Engine`, registered under the entry-point group
``proxywasm_host.engines`` as ``name = "package.module:Class"``; `proxywasm_host.engine.registry` finds it.
`proxywasm_host.testing.EngineComplianceSuite` tests these rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, ClassVar, Protocol

from proxywasm_host.errors import ProxyWasmError

__all__ = [
    "Capabilities",
    "Engine",
    "Export",
    "Frame",
    "FunctionType",
    "HostFunction",
    "Import",
    "Instance",
    "InvalidModule",
    "Limits",
    "LinkError",
    "Memory",
    "Module",
    "Trap",
    "TrapKind",
]


@dataclass(frozen=True, slots=True)
class FunctionType:
    """The type of a function: names of value types (``i32 i64 f32 f64``, or another name that a guest may use)."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"


@dataclass(frozen=True, slots=True)
class Import:
    """One import of a module. `kind` is ``function``, ``memory``, ``table``, ``global`` or ``tag``."""

    module: str
    name: str
    kind: str
    type: FunctionType | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """One export of a module; `kind` as in `Import`."""

    name: str
    kind: str
    type: FunctionType | None = None


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function that the host offers for one import.

    `call` takes one ``int`` for each parameter and returns an ``int``, or ``None`` where the type has no result.

    An engine with native code of its own may save the way through Python: if `call` has an attribute `native_entry`,
    that is a capsule with a ``Proxywasm_hostcall`` (``include/proxywasm_host.h``), good
    while `call` is kept alive; parameters and result are i32 and i64 only.
    """

    module: str
    name: str
    type: FunctionType
    call: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one instance; ``None`` is no limit.

    `memory` is in bytes and bounds linear memory: ``memory.grow`` beyond it answers -1. Tables are not in it: a `Host`
    lets modules have few elements more than they begin with, and takes what these count for off `memory`.
    `deadline` is in seconds and bounds each outermost call into the guest.

    Raises: TypeError, ValueError.
    """

    memory: int | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        memory: Any = self.memory
        deadline: Any = self.deadline
        if memory is not None and memory.__class__ is not int:
            raise TypeError(f"memory of Limits is a number of bytes, such as 64 << 20, or None, not {memory!r}")
        if deadline is not None and deadline.__class__ not in (int, float):
            raise TypeError(f"deadline of Limits is a number of seconds, such as 0.5, or None, not {deadline!r}")
        if memory is not None and memory < 0:
            raise ValueError(f"memory of Limits is {memory} bytes, which is less than 0; None is no limit")
        if deadline is not None and not 0 <= deadline < inf:
            raise ValueError(f"deadline of Limits is {deadline} seconds: give a number from 0 on, or None")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of an engine. Runtime and tests ask for a capability, never for an engine's name."""

    serialise: bool = False
    memory_limit: bool = False
    deadline: bool = False
    backtrace: bool = False
    validation: bool = False
    """Code of wrong types is refused when it is compiled; without this, a guest is stopped where it comes to it."""
    fork: bool = False
    """What was opened before ``os.fork()`` goes on in the child process."""


class TrapKind(Enum):
    """Why a guest stopped, the same words on every engine.

    One exception: a float that is too large for an integer is an INTEGER_OVERFLOW on engines that tell it from NaN, and
    a BAD_CONVERSION, as NaN is, on those that do not.
    """

    UNREACHABLE = "unreachable"
    OUT_OF_BOUNDS = "out of bounds memory access"
    TABLE_OUT_OF_BOUNDS = "out of bounds table access"
    INDIRECT_CALL = "wrong or missing function in an indirect call"
    DIVIDE_BY_ZERO = "integer division by zero"
    INTEGER_OVERFLOW = "integer overflow"
    BAD_CONVERSION = "invalid conversion to integer"
    STACK_OVERFLOW = "call stack exhausted"
    DEADLINE = "deadline exceeded"
    MEMORY_LIMIT = "memory limit exceeded"
    OTHER = "trap"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a guest backtrace, innermost first. `function` is the name section's, or ``<wasm function N>``."""

    function: str
    module: str = ""
    offset: int | None = None

    def __str__(self) -> str:
        return self.function if self.offset is None else f"{self.function} +{self.offset:#x}"


class Trap(ProxyWasmError):
    """The guest was stopped: `kind` says why, `frames` where (empty if the engine cannot tell)."""

    code = "trap"

    def __init__(self, kind: TrapKind, message: str = "", frames: Sequence[Frame] = ()) -> None:
        super().__init__(message or kind.value)
        self.kind = kind
        self.message = message or kind.value
        self.frames = tuple(frames)


class InvalidModule(ProxyWasmError):
    """The bytes are no WebAssembly module that this engine can compile; the message says what and where."""

    code = "invalid_module"


class LinkError(ProxyWasmError):
    """The module could not be instantiated with the host functions given; the message names the import."""

    code = "link"


class Memory(Protocol):
    """The linear memory of one instance.

    `view` is a writable view of bytes, current when it was last refreshed. Callers use it at once and never keep
    it across a call into the guest. Memory only grows, so an access within `view` is always good; one beyond it is
    tried again after `refresh`. While an instance lives, growth must not move the bytes that an older view shows
    (engines reserve address space for that), unless `view` is a property that makes a new view each time.

    A memory may have an attribute `native_range`: a capsule (`adapter.memory_capsule`) with a
    ``Proxywasm_memory`` that lasts as long as the memory object and says what `view` shows, for C code that looks at
    it instead. Its size is 0 from the moment on at which the instance is closed.
    """

    view: memoryview

    def refresh(self) -> bool:
        """Make `view` show the whole of the memory. Returns whether it had grown."""
        ...


class Instance(Protocol):
    """A running module."""

    memory: Memory | None
    """The exported memory named ``memory``, or ``None``."""

    def function(self, name: str) -> Callable[..., Any] | None:
        """The exported function `name` as a callable of plain ints, or ``None`` if no function has that name.

        Resolve once and keep: calling must not look anything up.

        What is returned may have an attribute `native_call`, for C code that calls it: a capsule with a
        ``Proxywasm_callback``, good while the callable is kept alive; only where arguments and result are i32 and i64.

        Raises (when called): Trap, or whatever a host function raised.
        """
        ...

    def close(self) -> None:
        """Free what the instance holds. Calls after that raise ``RuntimeError``; closing twice is fine."""
        ...


class Module(Protocol):
    """Compiled code: immutable, shared by any number of instances and threads."""

    imports: Sequence[Import]
    exports: Sequence[Export]

    def instantiate(
        self, functions: Sequence[HostFunction], limits: Limits, bind: Callable[[Instance], None] | None = None
    ) -> Instance:
        """Make an instance; `functions` has one entry for each import, in the order of `imports`.

        The module's start function runs before this returns and may call host functions; `bind` is called with
        the instance when its memory can be used, which is before the start function where the engine can do so.

        Raises: LinkError, Trap.
        """
        ...

    def serialise(self) -> bytes:
        """The compiled code as bytes that `Engine.deserialise` takes, if ``capabilities.serialise``.

        The engine's fingerprint is among them, see `adapter.identity`.
        """
        ...


class Engine(Protocol):
    """An engine that is ready to compile. Making one (``Class(**options)``) may raise ``EngineUnavailable``."""

    name: ClassVar[str]
    priority: ClassVar[int]
    """Which engine is taken when none is asked for: the highest. Wasmtime 300, V8 200, Wasmer 100."""

    version: str
    """Version of the runtime below, such as ``50.0.1``."""
    fingerprint: str
    """Changes whenever code that was serialised before cannot be used any more (version, options, processor)."""
    capabilities: Capabilities
    note: str
    """One line on how it runs here, for ``proxywasm engines``; empty if there is nothing to say."""

    def compile(self, bytecode: bytes) -> Module:
        """Validate and compile. Raises: InvalidModule."""
        ...

    def deserialise(self, compiled: bytes) -> Module:
        """Load what `Module.serialise` of the same `fingerprint` gave. Only for bytes from a source one trusts.

        Raises: InvalidModule, also for what another version, or an engine with other options, has serialised.
        """
        ...

"""The protocol of WebAssembly engines: everything that an adapter must provide.

Rules of this module:

* It covers WebAssembly, not Proxy-Wasm: it does not mention hostcalls, statuses or contexts.
* Integers cross as plain ``int``: to the host, i32 and i64 are *unsigned* (0 … 2³²-1, 0 … 2⁶⁴-1); to the guest, any
  ``int`` is taken modulo its width. f32 and f64 cross as ``float``.
* The exceptions of an engine never leave the adapter: compiling raises ``InvalidModule``, instantiating ``LinkError``
  or ``Trap``, calling ``Trap``.
* An exception raised by a host function ends the guest's call, and the outermost call raises it unchanged.
* One instance serves one thread at a time, but not always the same one. While a thread is inside (in the guest, or in a
  host function that the guest called), calls from other threads raise ``RuntimeError``, and so does closing. Calls
  nest: host → guest → host → guest. Modules and engines serve any number of threads.
* After ``os.fork()``, everything that was opened before continues to work in the child process if the engine has the
  capability ``fork``. Otherwise using it there raises a ``RuntimeError`` that says so, and what to do.

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
    """The type of a function: names of value types (``i32``, ``i64``, ``f32``, ``f64``, or others that guests use)."""

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

    `call` accepts a number for each parameter, and returns a number, or ``None`` if the type has no result.

    An engine with native code may call it without Python: the attribute `native_entry` of `call`, if present, is a
    capsule with a ``Proxywasm_hostcall`` (``include/proxywasm_host.h``), valid as long as `call` exists. Its parameters
    are i32 and i64, and its result is i32.
    """

    module: str
    name: str
    type: FunctionType
    call: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one instance; ``None`` is no limit.

    `memory` limits linear memory, in bytes: ``memory.grow`` beyond it returns -1. It does not include tables: a `Host`
    limits their growth, and subtracts their size from `memory`. `deadline` limits each outermost call into the guest,
    in seconds.

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
    """The capabilities of an engine. Runtime and tests check a capability, never the name of an engine."""

    serialise: bool = False
    memory_limit: bool = False
    deadline: bool = False
    backtrace: bool = False
    validation: bool = False
    """Whether code with type errors is refused when it is compiled; otherwise the guest is stopped when it runs it."""
    fork: bool = False
    """Whether everything that was opened before ``os.fork()`` continues to work in the child process."""


class TrapKind(Enum):
    """Why a guest stopped, in the same words on every engine.

    One exception: the conversion of a float that is too large for an integer is an INTEGER_OVERFLOW on engines that
    distinguish it from NaN, and a BAD_CONVERSION, like NaN, on others.
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
    """One frame of a guest's backtrace. `function` is the name in the name section, or ``<wasm function N>``."""

    function: str
    module: str = ""
    offset: int | None = None

    def __str__(self) -> str:
        return self.function if self.offset is None else f"{self.function} +{self.offset:#x}"


class Trap(ProxyWasmError):
    """The guest was stopped. `kind` is the reason, `frames` the backtrace, innermost first (empty if unknown)."""

    code = "trap"

    def __init__(self, kind: TrapKind, message: str = "", frames: Sequence[Frame] = ()) -> None:
        super().__init__(message or kind.value)
        self.kind = kind
        self.message = message or kind.value
        self.frames = tuple(frames)


class InvalidModule(ProxyWasmError):
    """The bytes are not a WebAssembly module that this engine can compile. The message describes the problem."""

    code = "invalid_module"


class LinkError(ProxyWasmError):
    """The module could not be instantiated with the given host functions. The message names the import."""

    code = "link"


class Memory(Protocol):
    """The linear memory of one instance.

    `view` is a writable view of bytes, in the state of the last refresh. Callers use it at once, and never keep it
    across a call into the guest. Memory only grows, so an access within `view` is always valid; one beyond it is tried
    again after `refresh`. While the instance exists, growth must not move the bytes of an older view (engines reserve
    address space for that), unless `view` is a property that makes a new view each time.

    A memory may have an attribute `native_range`, which C code uses instead of `view`: a capsule
    (`adapter.memory_capsule`) with a ``Proxywasm_memory`` that describes the bytes in `view`, and exists as long as the
    memory object. Its size is 0 as soon as the instance is closed.
    """

    view: memoryview

    def refresh(self) -> bool:
        """Extend `view` to the whole memory. Returns whether the memory has grown."""
        ...


class Instance(Protocol):
    """A running module."""

    memory: Memory | None
    """The exported memory named ``memory``, or ``None``."""

    def function(self, name: str) -> Callable[..., Any] | None:
        """The exported function `name` as a callable with plain numbers, or ``None`` if no function has that name.

        Callers resolve a function once: a call must not look anything up.

        The callable may have an attribute `native_call` for C code: a capsule with a ``Proxywasm_callback``, valid as
        long as the callable exists, if its parameters and result are i32 and i64.

        Raises (when called): Trap, or the exception of a host function.
        """
        ...

    def close(self) -> None:
        """Free the instance. Later calls raise ``RuntimeError``; closing twice is allowed."""
        ...


class Module(Protocol):
    """Compiled code: immutable, shared by any number of instances and threads."""

    imports: Sequence[Import]
    exports: Sequence[Export]

    def instantiate(
        self, functions: Sequence[HostFunction], limits: Limits, bind: Callable[[Instance], None] | None = None
    ) -> Instance:
        """Make an instance; `functions` has one entry for each import, in the order of `imports`.

        The module's start function runs before this returns, and may call host functions. `bind` is called with the
        instance when its memory is usable, before the start function if the engine can do so.

        Raises: LinkError, Trap.
        """
        ...

    def serialise(self) -> bytes:
        """The compiled code as bytes for `Engine.deserialise`, if the engine has the capability ``serialise``.

        They include the engine's fingerprint, see `adapter.identity`.
        """
        ...


class Engine(Protocol):
    """An engine that is ready to compile. Its constructor (``Class(**options)``) may raise ``EngineUnavailable``."""

    name: ClassVar[str]
    priority: ClassVar[int]
    """By default, the usable engine with the highest priority is used. Wasmtime has 300, V8 200, Wasmer 100."""

    version: str
    """Version of the WebAssembly runtime, such as ``50.0.1``."""
    fingerprint: str
    """Changes when code that was serialised before cannot be used any more (version, options, processor)."""
    capabilities: Capabilities
    note: str
    """One line about how the engine runs here, for ``proxywasm engines``; may be empty."""

    def compile(self, bytecode: bytes) -> Module:
        """Validate and compile `bytecode`. Raises: InvalidModule."""
        ...

    def deserialise(self, compiled: bytes) -> Module:
        """Load the result of `Module.serialise` with the same `fingerprint`. The source of the bytes must be trusted.

        Raises: InvalidModule, also for code of another version, or of an engine with other options.
        """
        ...

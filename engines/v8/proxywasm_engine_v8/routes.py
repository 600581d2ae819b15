"""The interface of a route to V8, and the exceptions of V8. There are two routes: `in_thread` and `mini_racer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from proxywasm_host.engine.protocol import FunctionType, HostFunction

    from .binary import Binary

__all__ = ["Calls", "Isolate", "Link", "Lowering", "Pending", "Route", "Thrown"]


class Thrown(Exception):
    """A JavaScript exception: its class, message and stack."""

    def __init__(self, kind: str, message: str, stack: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.stack = stack


class Pending:
    """The exception of a host function.

    Host functions have a reference to this object only, so that they make no cycle with their isolate.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def raised(self, error: BaseException) -> None:
        """Store the exception of a host function."""
        self.error = error

    def take(self) -> BaseException | None:
        """Return and remove the stored exception, or ``None``."""
        error, self.error = self.error, None
        return error


@dataclass(frozen=True, slots=True)
class Lowering:
    """The Python source of a route's part of the trampolines. `trampolines` defines the names that it may use."""

    prelude: str
    """Runs once for each instance."""
    doors: tuple[str, ...]
    """The functions of the prelude that enter the guest."""
    refused: str
    """Raises an exception if a nested call is not allowed."""
    outermost: str
    """Calls the guest's function ``number`` while no thread is inside. Sets ``owner_thread`` to this thread, and
    ``result`` to a true value if the call succeeds."""
    nested: str
    """Calls the guest's function ``number`` from a host function, and sets ``result``."""


@dataclass(frozen=True, slots=True)
class Link:
    """The trampolines of one instance."""

    guests: Sequence[Callable[..., Any]]
    hosts: Sequence[Any]
    """The host functions, as arguments of the isolate's `instantiate`."""
    shut: Callable[[], bool]
    """Refuses further calls. Returns whether no call is active. Raises: RuntimeError if another thread is inside."""
    connect: Callable[[Sequence[Any]], object]
    """Accepts the result of the isolate's `instantiate`."""


class Calls(Protocol):
    """The state of active calls in one instance."""

    raised: Callable[[BaseException], None]
    """Stores the exception of a host function. Has no reference to the isolate."""

    def link(self, guests: Sequence[FunctionType], functions: Sequence[HostFunction]) -> Link:
        """Make the trampolines, for exports of the types `guests` and the host's `functions`."""
        ...

    def problem(self, result: object, nested: bool) -> BaseException:
        """The exception for a call that ended with `result` and without an answer."""
        ...

    def recover(self, outermost: bool) -> None:
        """Clean up after a call that Python itself has ended, for example by a KeyboardInterrupt."""
        ...

    def end(self) -> None:
        """Prepare for the end of the isolate. No thread is inside."""
        ...


class Isolate(Protocol):
    """A heap of V8 with the glue in it, which one thread at a time may enter."""

    page_at: int
    """The address of the page of `bridge`."""

    def keep(self, thing: object) -> None:
        """Keep `thing` until the isolate is freed."""
        ...

    def compile(self, code: bytes) -> int:
        """Make a ``WebAssembly.Module`` of this isolate. The caller frees it with `drop`. Raises: Thrown."""
        ...

    def drop(self, handle: int) -> None:
        """Free a module."""
        ...

    def calls(self, binary: Binary, deadline: float | None) -> Calls:
        """The calls of the only instance in this isolate."""
        ...

    def instantiate(self, plan: Mapping[str, Any], codes: Sequence[bytes], hosts: Sequence[Any]) -> list[Any]:
        """Make the instance, see `glue`. Returns the argument of `Link.connect`. Raises: Thrown."""
        ...

    def memory(self) -> tuple[int, int]:
        """Address and size of the guest's memory. Raises: Thrown."""
        ...

    def dispose(self) -> None:
        """Free the isolate with everything in it. No thread may be in it."""
        ...


class Route(Protocol):
    """A way to call V8 in this process."""

    version: str
    note: str
    room: int
    """Bytes of address space for all memories."""
    follows: bool
    """Whether memories may move."""
    forks: bool
    """Whether instances continue to work in a child process."""
    sees_loops: bool
    """Whether a trap at a deadline has a backtrace."""

    def isolate(self) -> Isolate:
        """Make an isolate."""
        ...

    def compiling_isolate(self) -> Isolate:
        """The isolate in which modules are compiled. It holds all modules in use."""
        ...

"""What a route to V8 provides, and what V8 throws. There are two: `in_thread` and `mini_racer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from proxywasm_host.engine.protocol import FunctionType, HostFunction

    from .binary import Binary

__all__ = ["Calls", "Isolate", "Link", "Lowering", "Pending", "Route", "Thrown"]


class Thrown(Exception):
    """JavaScript's exception: its class, its message, its stack."""

    def __init__(self, kind: str, message: str, stack: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.stack = stack


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


@dataclass(frozen=True, slots=True)
class Lowering:
    """The Python source of a route's part of the trampolines, see there for the names that are at hand."""

    prelude: str
    """Made once for each instance."""
    doors: tuple[str, ...]
    """Names of the prelude that each call calls."""
    refused: str
    """Raises what forbids a call within a call."""
    outermost: str
    """Calls the guest's function ``number`` while nobody is inside. Sets ``owner_thread`` to this thread, and
    ``result``, which is true if all is well."""
    nested: str
    """The same, within a host function."""


@dataclass(frozen=True, slots=True)
class Link:
    """The trampolines of one instance."""

    guests: Sequence[Callable[..., Any]]
    hosts: Sequence[Any]
    """What the isolate's `instantiate` takes."""
    shut: Callable[[], bool]
    """Lets no call in any more, and tells whether nobody is inside. Raises: RuntimeError if another thread is."""
    connect: Callable[[Sequence[Any]], object]
    """To be given what the isolate's `instantiate` returned."""


class Calls(Protocol):
    """What is to be known of calls that are under way in one instance."""

    raised: Callable[[BaseException], None]
    """To be told what a host function raises; knows nothing of the isolate."""

    def link(self, guests: Sequence[FunctionType], functions: Sequence[HostFunction]) -> Link:
        """The trampolines, for exports of the types `guests` and the host's `functions`."""
        ...

    def problem(self, result: object, nested: bool) -> BaseException:
        """What to raise after a call that has left `result`, and something else than an answer."""
        ...

    def recover(self, outermost: bool) -> None:
        """Leave nothing behind of a call that Python itself has ended, for example by a KeyboardInterrupt."""
        ...

    def end(self) -> None:
        """Nobody is inside, and the isolate is to be freed."""
        ...


class Isolate(Protocol):
    """A heap of V8's with the glue in it, in which one thread at a time can be."""

    page_at: int
    """The address of the page of `bridge`."""

    def keep(self, thing: object) -> None:
        """Keep `thing` as long as the isolate lives."""
        ...

    def compile(self, code: bytes) -> int:
        """A ``WebAssembly.Module`` of this isolate, to be dropped by `drop`. Raises: Thrown."""
        ...

    def drop(self, handle: int) -> None:
        """Give a module back."""
        ...

    def calls(self, binary: Binary, deadline: float | None) -> Calls:
        """For the one instance that is to be made in the isolate."""
        ...

    def instantiate(self, plan: Mapping[str, Any], codes: Sequence[bytes], hosts: Sequence[Any]) -> list[Any]:
        """Make the instance; see `glue`. Returns: what `Link.connect` takes. Raises: Thrown."""
        ...

    def memory(self) -> tuple[int, int]:
        """Address and size of the guest's memory. Raises: Thrown."""
        ...

    def dispose(self) -> None:
        """Free the isolate with everything in it. Nobody may be in it."""
        ...


class Route(Protocol):
    """One way to V8 in this process."""

    version: str
    note: str
    room: int
    """Bytes of address space in which all memories lie."""
    follows: bool
    """Whether memory can be followed when it moves."""
    forks: bool
    """Whether instances go on in a child process."""
    sees_loops: bool
    """Whether a guest that is ended by its deadline has a backtrace."""

    def isolate(self) -> Isolate:
        """A new isolate."""
        ...

    def workshop(self) -> Isolate:
        """The isolate in which modules are compiled. All are kept there that are in use."""
        ...

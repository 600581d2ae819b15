# The C extension: the C form of trampolines.py, in_thread/calls.py and parts of bulk.py. Addresses are numbers.

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

NATIVE_ABI: int
FINGERPRINT: int
CONSTANTS: dict[str, int]
HOST_CALLED: int

_Type: TypeAlias = tuple[str, str]  # one letter for each parameter, and one for the result

@final
class Affinity:
    # Keeps V8's lock on an isolate in one thread. Takes the addresses of the isolate, its context and its handle scope.
    def __init__(self, isolate: int, context: int, scope: int, /) -> None: ...
    def enter(self) -> int: ...
    def leave(self, outer: int, /) -> None: ...
    def end(self) -> None: ...

@final
class Trampolines:
    def __init__(
        self,
        owner: object,
        affinity: Affinity,
        raised: Callable[[BaseException], object],
        problem: Callable[..., BaseException],
        places: tuple[int, int],
        watched: tuple[object, int, float] | None,
        /,
    ) -> None: ...
    def guest(self, type: _Type, /) -> Any: ...
    def imports(self, functions: list[tuple[Callable[..., Any], _Type]], /) -> None: ...
    def shut(self) -> bool: ...

def use(stack_limit: Callable[[], int], addresses: list[int], /) -> None: ...
def is_ticking() -> bool: ...
def ranges_of(code: bytes, start: int, end: int, /) -> tuple[bytes | None, int]: ...
def planned(
    code: bytes, start: int, end: int, ranges: bytes, first: int, has_memory: bool, /
) -> tuple[bytes, list[bytes], list[tuple[int, int]]]: ...
def joined(
    before: Sequence[bytes | memoryview],
    code: bytes,
    bodies: tuple[int, int, bytes, Sequence[bytes]],
    after: Sequence[bytes | memoryview],
    /,
) -> bytes: ...

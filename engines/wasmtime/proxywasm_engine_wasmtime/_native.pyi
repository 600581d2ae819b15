# The C extension: the C form of trampolines.py and deadline.py. Addresses are numbers.

from collections.abc import Callable
from typing import Any, final

NATIVE_ABI: int
FINGERPRINT: int
CONSTANTS: dict[str, int]
HOST_CALLED: int
EPOCH_REACHED: int

@final
class Ticker:
    # Advances the epoch of an engine while guests run. Keeps the engine alive.
    def __new__(cls, engine: object, pointer: int, /) -> Ticker: ...
    @property
    def running(self) -> bool: ...

@final
class Trampolines:
    def __init__(
        self,
        context: int,
        store: object,
        failed: Callable[[int, int, int], BaseException],
        starting: Callable[[int], object],
        ticker: Ticker | None,
        seconds: float,
        /,
    ) -> None: ...
    def guest(self, params: str, result: str, /) -> tuple[Callable[..., Any], int]: ...
    def host(self, call: Callable[..., Any], params: str, result: str, /) -> int: ...
    def instantiate(self, module: int, imports: int, count: int, instance: int, /) -> None: ...
    def shut(self) -> bool: ...

def use(*addresses: int) -> None: ...
def prepare(
    is_enabled: Callable[[], bool], bring_forward: Callable[[], object], check_stack: Callable[[], object], /
) -> None: ...

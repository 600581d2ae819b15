# The C extension. Where it is there, its classes take the place of those of the same name in Python, which say what
# they do; `tests/runtime/test_both_forms.py` compares them.

from collections.abc import Callable
from typing import Any, final

from proxywasm_host.abi.context import ContextState as ContextState
from proxywasm_host.abi.held_body import HeldBody as HeldBody
from proxywasm_host.abi.marshal import Calls as Calls
from proxywasm_host.abi.marshal import Guest as Guest
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.integrations.exchange_base import ExchangeBase as ExchangeBase
from proxywasm_host.runtime.fast_path import FilterChainBase as FilterChainBase
from proxywasm_host.runtime.fast_path import HostBase as HostBase
from proxywasm_host.runtime.fast_path import HttpContextBase as HttpContextBase
from proxywasm_host.runtime.fast_path import HttpStreamBase as HttpStreamBase
from proxywasm_host.runtime.fast_path import PluginBase as PluginBase
from proxywasm_host.runtime.outbox import Outbox as Outbox
from proxywasm_host.runtime.vm_base import VmBase as VmBase

NATIVE_ABI: int
FINGERPRINT: int
CONSTANTS: dict[str, int]

@final
class Hostcall:
    # A host function: what `abi.marshal.bind_in_python` compiles. The row, its name and plan, the status for a bad
    # address, whether nothing is written for nothing (ABI 0.1.0), the handler, the VM, and its guest.
    def __new__(
        cls,
        row: object,
        name: str,
        plan: tuple[tuple[str, int, bool, bool, bool, int, int, bool], ...],
        memory_error: int,
        none_is_empty: bool,
        handler: Callable[..., Any],
        vm: object,
        guest: Guest,
        /,
    ) -> Hostcall: ...
    def __call__(self, *args: int) -> int: ...
    __name__: str
    @property
    def native_entry(self) -> object: ...

def use(**objects: object) -> None: ...
def decode(bytes: object, /) -> HeaderList | None: ...
def encode(pairs: object, /) -> bytes | None: ...
def received_request(
    headers: object, method: object, target: object, scheme: object, server: object, /
) -> tuple[HeaderList, int | None, bool, bool] | None: ...
def received_response(status: object, headers: object, /) -> tuple[HeaderList, int | None] | None: ...
def sent_request(headers: HeaderList, /) -> tuple[Any, ...] | None: ...
def sent_response(headers: HeaderList, /) -> tuple[Any, ...] | None: ...
def asgi_begin(exchange: object, scope: object, /) -> bytes | None: ...
def asgi_sent(exchange: object, message: object, /) -> dict[str, Any] | bool | None: ...
def asgi_scope(scope: object, target: object, head: object, /) -> dict[str, Any] | None: ...
def slot_setter(cls: type, /, *slots: object) -> Callable[..., None]: ...
def read_code(
    data: bytes,
    start: int,
    end: int,
    kinds: bytes,
    effects: bytes,
    types: bytes,
    functions: bytes,
    imported: int,
    weights: bytes,
    /,
) -> tuple[tuple[int, ...], int, int, bool, int, list[int], bytes | None]: ...

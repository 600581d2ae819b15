"""Hostcalls that an embedder adds, with rows and handlers of the same form as those of the ABI.

    from proxywasm_host.hostcalls import Refusal, Status, data, data_out, hostcall

    @hostcall("proxy_get_secret", data("name"), data_out("secret"))
    def get_secret(vm, name):
        return SECRETS.get(name) or Refusal(Status.NOT_FOUND, "no secret {0}", name)

    Host(hostcalls=[get_secret])

They are linked, marshalled, traced and restricted like those of the ABI. An invalid one is refused when it is made. The
results of its handler are checked, because a guest must get what the row promises.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import wraps
from typing import Any, Final

from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.table import CALLBACKS, HOSTCALLS, WASI, Hostcall, Kind, Param
from proxywasm_host.abi.types import AbiVersion

__all__ = ["CustomHostcall", "by_name", "hostcall"]

OURS: Final = frozenset(row.name for rows in (HOSTCALLS, WASI, CALLBACKS) for row in rows)
MAX_PARAMS: Final = 16
"""As in native.h."""


def _is_number(value: Any, bits: int) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << bits


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, tuple) and list(map(type, pair)) == [bytes, bytes] for pair in value
    )


def _are_bytes(value: Any) -> bool:
    return isinstance(value, bytes)


WANTED: Final[Mapping[Kind, tuple[str, Callable[[Any], bool]]]] = {
    Kind.U32_OUT: ("a number from 0 to 2³²-1", lambda value: _is_number(value, 32)),
    Kind.U64_OUT: ("a number from 0 to 2⁶⁴-1", lambda value: _is_number(value, 64)),
    Kind.BYTES_OUT: ("bytes", _are_bytes),
    Kind.PAIRS_OUT: ("a list of (name, value) pairs of bytes", _are_pairs),
    Kind.BYTES_AT: ("bytes", _are_bytes),
    Kind.STRINGS_AT: ("a list of bytes", lambda value: isinstance(value, list) and all(map(_are_bytes, value))),
}
"""The value that a handler returns for a result of each kind: as text for errors, and as a check."""


@dataclass(frozen=True, eq=False)
class CustomHostcall:
    """A hostcall of an embedder: its row and its handler. Make it with `hostcall`, and pass it to a `Host`.

    `handler` is called as ``handler(vm, *inputs)``, with inputs of the row's kinds: ``int``, ``bytes``, or a list of
    pairs of bytes. It returns ``None`` for OK; or the result, a tuple if there are several; or a `Refusal` with
    the status and the reason. `vm` is a `VmState`: ``vm.context`` is the calling context, ``vm.services`` are the
    host's services.

    The guest waits for the handler, so it must neither block nor feed an event. An exception makes the VM fail, with
    the exception in the reason; for `QuotaExceeded` and `ServiceUnavailable` the guest gets INTERNAL_FAILURE.

    Raises: TypeError or ValueError, for anything that cannot be a hostcall.
    """

    row: Hostcall
    handler: Callable[..., Any]

    def __post_init__(self) -> None:
        _check_row(self.row)
        _check_handler(self.row, self.handler)

    @property
    def name(self) -> str:
        """The name under which filters import it from ``env``."""
        return self.row.name

    def bound(self) -> Callable[..., Any]:
        """The handler for the marshaller, with a check of its result."""
        row, handler = self.row, self.handler

        @wraps(handler)
        def call(*args: Any) -> Any:
            result = handler(*args)
            if not isinstance(result, Refusal):
                _check_result(row, result)
            return result

        return call

    def __repr__(self) -> str:
        return f"<hostcall {self.row.name}>"


def hostcall(
    name: str,
    *params: Param,
    returns: str | None = "i32",
    since: AbiVersion = AbiVersion.V0_1_0,
    until: AbiVersion = AbiVersion.V0_2_100,
) -> Callable[[Callable[..., Any]], CustomHostcall]:
    """A decorator that makes a function a hostcall.

    Args:
        name: the name under which filters import it from ``env``; not a name of the ABI.
        params: its parameters in the order of the WebAssembly signature, results included: ``data("key")``,
            ``u32("id")``, ``data_out("value")``, …
        returns: ``"i32"``, the status; ``None`` if the function has no result.
        since, until: the first and last version of the ABI whose modules may import it.

    Raises: as `CustomHostcall`.
    """
    row = Hostcall(name, params, since, until, returns)
    return lambda handler: CustomHostcall(row, handler)


def by_name(hostcalls: Iterable[CustomHostcall]) -> dict[str, CustomHostcall]:
    """The hostcalls of one host. Raises: TypeError, ValueError."""
    found: dict[str, CustomHostcall] = {}
    if isinstance(hostcalls, (CustomHostcall, Mapping, str)) or not isinstance(hostcalls, Iterable):
        raise TypeError(f"hostcalls are a list of functions decorated with @hostcall(…), not {hostcalls!r}")
    for one in hostcalls:
        if not isinstance(one, CustomHostcall):
            raise TypeError(f"a hostcall is a function decorated with @hostcall(name, …), not {one!r}")
        if found.setdefault(one.name, one) is not one:
            raise ValueError(f"two hostcalls are called {one.name}")
    return found


# -- Checks ------------------------------------------------------------------------------------------------------------


def _check_row(row: Any) -> None:
    if not isinstance(row, Hostcall):
        raise TypeError(f"a row is a Hostcall(name, params), not {row!r}")
    name: Any = row.name
    if not isinstance(name, str) or not name:
        raise TypeError(f"a hostcall has a name of text, such as 'proxy_get_secret', not {name!r}")
    if name in OURS:
        raise ValueError(f"{name} is a function of the ABI, which an embedder cannot replace")
    params: Any = row.params
    if not isinstance(params, tuple):
        raise TypeError(f"{name}: parameters are a tuple of data(…), u32(…), data_out(…) and the like")
    since: Any = row.since
    until: Any = row.until
    if row.returns not in ("i32", None):
        raise ValueError(f"{name} returns {row.returns!r}: a hostcall returns 'i32', its status, or None")
    if len(row.params) > MAX_PARAMS:
        raise ValueError(f"{name} has {len(row.params)} parameters, and {MAX_PARAMS} is the limit")
    if not isinstance(since, AbiVersion) or not isinstance(until, AbiVersion) or since > until:
        raise ValueError(f"{name}: since and until are versions of the ABI, the older one first")
    for param in params:
        _check_param(name, param)
    names = [param.name for param in row.params]
    if len({*names}) < len(names):
        raise ValueError(f"{name}: two parameters have one name")


def _check_param(name: str, param: Any) -> None:
    if not isinstance(param, Param):
        raise TypeError(f"{name}: a parameter is made with data(…), u32(…), data_out(…) or the like; {param!r} is not")
    called: Any = param.name
    kind: Any = param.kind
    enum: Any = param.enum
    if not isinstance(called, str) or not called or not isinstance(kind, Kind):
        raise TypeError(f"{name}: a parameter has a name of text and a Kind, not {called!r} and {kind!r}")
    if "{" in called or "}" in called:
        raise ValueError(f"{name}: a parameter cannot be called {called!r}, because its name is part of messages")
    if enum is not None:
        known = isinstance(enum, type) and issubclass(enum, IntEnum) and len(enum) > 0
        if not known or kind is not Kind.U32 or min(enum) < 0:
            raise ValueError(f"{name}: {param.name} can be bounded by an IntEnum only if it is a u32")
    if param.early and param.kind is not Kind.U32_OUT:
        raise ValueError(f"{name}: {param.name} is not a number of 32 bits, so it cannot be written early")
    if param.optional and param.kind is not Kind.BYTES_OUT:
        raise ValueError(f"{name}: {param.name} cannot be optional: only a result of bytes can")


def _check_handler(row: Hostcall, handler: Any) -> None:
    if not callable(handler):
        raise TypeError(f"the handler of {row.name} is a function, not {handler!r}")
    if inspect.iscoroutinefunction(handler) or inspect.isgeneratorfunction(handler):
        raise TypeError(f"the handler of {row.name} is asynchronous, but the guest waits for it: use a plain function")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # a function in C may have no signature
        return
    inputs = [param.name for param in row.inputs]
    try:
        signature.bind(None, *inputs)
    except TypeError:
        called = ", ".join(["vm", *inputs])
        raise TypeError(f"the handler of {row.name} takes {signature}: it is called with ({called})") from None


def _check_result(row: Hostcall, result: Any) -> None:
    """Check a handler's result. Raises: TypeError, if it does not fit the row."""
    outputs = row.outputs
    if not outputs:
        if result is not None:
            raise TypeError(f"the handler of {row.name} returned {result!r}, and not None or a Refusal")
        return
    values = (result,) if len(outputs) == 1 else result
    if not isinstance(values, tuple) or len(values) != len(outputs):
        names = ", ".join(param.name for param in outputs)
        raise TypeError(f"the handler of {row.name} returned {result!r}, and not a tuple of {names}, or a Refusal")
    for param, value in zip(outputs, values, strict=True):
        words, fits = WANTED[param.kind]
        if not fits(value):
            found = f"{value!r} for {param.name}"
            raise TypeError(f"the handler of {row.name} returned {found}, and not {words} or a Refusal")

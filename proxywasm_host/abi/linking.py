"""Finds the host function for each import of a module.

Rules:

* A module can import the hostcalls of its own ABI version from ``env``, and WASI from both of its module names
  (``registerCallbacks`` in ``wasm.cc`` of Envoy's host).
* A name may be imported twice (Go does); each import gets its function.
* Hostcalls of the embedder (`custom`) are in ``env`` too.
* The resume calls of 0.1.0 and ``proxy_clear_route_cache`` may be declared with or without a result: the specification
  0.1.0 has none, Envoy's host has a status.
* Any other import is refused when the module is loaded, with a message that says what to do. With `unknown_imports`
  ``"stub"``, an unknown ``proxy_*`` import answers UNIMPLEMENTED when it is called, and an unknown one of WASI ENOSYS.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, cast

from proxywasm_host.abi.bytecode import FunctionSignature
from proxywasm_host.abi.custom import CustomHostcall
from proxywasm_host.abi.hostcalls import HANDLERS, WASI_HANDLERS
from proxywasm_host.abi.hostcalls.wasi import ALWAYS_REFUSED
from proxywasm_host.abi.marshal import Guest, bind, bind_refusal
from proxywasm_host.abi.table import CALLBACKS, HOSTCALLS, WASI, WASI_MODULES, Hostcall, hostcalls_of
from proxywasm_host.abi.types import AbiVersion, Status, WasiErrno
from proxywasm_host.errors import ModuleError

__all__ = ["ALLOCATOR_MAY_CALL", "STARTS", "START_MAY_CALL", "Import", "check_exports", "link", "look_up"]

WASI_ROWS: Final = {row.name: row for row in WASI}
ALL_VERSIONS: Final = {row.name: row for row in HOSTCALLS}
RESULT_OPTIONAL: Final = frozenset({"proxy_continue_request", "proxy_continue_response", "proxy_clear_route_cache"})

ALLOCATOR_MAY_CALL: Final = frozenset(
    {"proxy_log", "fd_write", "clock_time_get", "poll_oneoff", "emscripten_notify_memory_growth"}
)
"""Hostcalls allowed inside the guest's allocator (``allocMemory`` in ``wasm.h`` of Envoy's host)."""

START_MAY_CALL: Final = ALLOCATOR_MAY_CALL | (
    frozenset(WASI_ROWS) - {"fd_read", "fd_close", "fd_seek", "path_open", "sched_yield", "proc_exit"}
)
"""Hostcalls allowed in ``_initialize`` or ``_start`` (``startVm`` in ``wasm.cc`` of Envoy's host)."""

ALLOCATORS: Final = ("proxy_on_memory_allocate", "malloc")
"""Names of allocators in the order of the specification; the first one that is exported is used."""
I32: Final = ("i32",)
STARTS: Final[dict[str, tuple[str, ...]]] = {
    "_initialize": (),
    "_start": (),
    "main": ("i32", "i32"),
    "__main_void": (),
}
"""Exports that are called when a module starts, and their parameters."""

NEVER_DONE: Final = {name: status.name for status, names in ALWAYS_REFUSED.items() for name in names}
"""Functions of WASI that a filter may import but that refuse every call, with their answer."""

Signature = tuple[tuple[str, ...], tuple[str, ...]]


def signature_text(signature: Signature) -> str:
    """A signature as text, such as ``(i32, i32) -> (i32)``."""
    return f"({', '.join(signature[0])}) -> ({', '.join(signature[1])})"


def _row_of(
    module: str, name: str, version: AbiVersion, unknown_imports: str, custom: Mapping[str, CustomHostcall]
) -> tuple[Hostcall, Status | WasiErrno | None]:
    """The row of an import and, for a stub, the status that it always answers. Raises: ModuleError."""
    if module in WASI_MODULES:
        row = WASI_ROWS.get(name)
        if row:
            return row, None
        if unknown_imports == "stub":
            return Hostcall(name, (), restricted=WasiErrno.NOTCAPABLE), WasiErrno.ENOSYS
        raise ModuleError(f"import {module}.{name} is not a function of WASI preview 1 that a filter can use")
    if module == "env":
        own = custom[name].row if name in custom else None
        row = own if own and own.since <= version <= own.until else hostcalls_of(version).get(name)
        if row:
            return row, None
        if unknown_imports == "stub" and name.startswith("proxy_"):
            return Hostcall(name, ()), Status.UNIMPLEMENTED
        other = own or ALL_VERSIONS.get(name)
        if other:
            span = f"{other.since}" if other.since == other.until else f"{other.since} to {other.until}"
            raise ModuleError(
                f"import env.{name} belongs to ABI {span}, but the module says that it is built for {version}: "
                "build it with one SDK, or load it with unknown_imports='stub'"
            )
    hint = (
        "load it with unknown_imports='stub' to have it answer UNIMPLEMENTED, or add it with Host(hostcalls=[…])"
        if module == "env" and name.startswith("proxy_")
        else (
            "build the filter for wasm32-wasip1 or wasm32-unknown-unknown, "
            "without functions that only a browser or another host has"
        )
    )
    raise ModuleError(f"import {module}.{name} is offered by no Proxy-Wasm host: {hint}")


def _offer(
    module: str,
    name: str,
    kind: str,
    signature: FunctionSignature | None,
    version: AbiVersion,
    unknown_imports: str,
    custom: Mapping[str, CustomHostcall],
) -> tuple[Hostcall, Status | WasiErrno | None]:
    """As `_row_of`, after a check of the import's kind and type. Raises: ModuleError."""
    if kind != "function":
        raise ModuleError(f"import {module}.{name} is a {kind}: a filter may import functions only")
    if signature is None:
        raise ModuleError(f"import {module}.{name} has no type: the module is damaged")
    row, stub = _row_of(module, name, version, unknown_imports, custom)
    if stub is not None:
        if signature[1] not in ((), I32):
            raise ModuleError(
                f"import {module}.{name} has the type {signature_text(signature)}, whose result cannot be a status"
            )
        return row, stub
    expected: Signature = (row.types, (row.returns,) if row.returns else ())
    if signature != expected and not (name in RESULT_OPTIONAL and signature == (expected[0], ())):
        raise ModuleError(
            f"import {module}.{name} has the type {signature_text(signature)}, "
            f"but in ABI {version} it is {signature_text(expected)}"
        )
    return row, None


@lru_cache(maxsize=1024)
def _offer_of_ours(
    module: str, name: str, kind: str, signature: FunctionSignature | None, version: AbiVersion, unknown_imports: str
) -> tuple[Hostcall, Status | WasiErrno | None]:
    """`_offer` without hostcalls of the embedder, cached because each VM of a module has the same imports."""
    return _offer(module, name, kind, signature, version, unknown_imports, {})


@dataclass(frozen=True)
class Import:
    """The status of an import of a module.

    Args:
        name: module and name, such as ``env.proxy_log``.
        status: ``have``; ``stub``, if it always answers the same; ``refused``, if it prevents loading the module, or if
            this filter is not allowed to call it.
        reason: the reason for a stub or a refusal.
    """

    name: str
    status: Literal["have", "stub", "refused"]
    reason: str = ""


def look_up(
    imports: Iterable[tuple[str, str, str, FunctionSignature | None]],
    version: AbiVersion,
    allowed: Container[str] | None = None,
    unknown_imports: Literal["error", "stub"] = "error",
    hostcalls: Iterable[CustomHostcall] = (),
) -> list[Import]:
    """The status of each import. The arguments are those of `link`, which raises for the first wrong import."""
    custom = {one.name: one for one in hostcalls}
    found: dict[str, Import] = {}
    for module, name, kind, signature in imports:
        whole = f"{module}.{name}"
        try:
            row, answers = _offer(module, name, kind, signature, version, unknown_imports, custom)
        except ModuleError as error:
            found[whole] = Import(whole, "refused", str(error))
            continue
        if allowed is not None and name not in allowed and row.returns:
            found.setdefault(whole, Import(whole, "refused", "it is not among the capabilities of this filter"))
        elif answers is not None or name in NEVER_DONE:
            answer = NEVER_DONE[name] if answers is None else answers.name
            found.setdefault(whole, Import(whole, "stub", f"it does nothing, and answers {answer}"))
        else:
            found.setdefault(whole, Import(whole, "have"))
    return list(found.values())


def _without_result(call: Callable[..., int]) -> Callable[..., None]:
    def no_result(*args: int) -> None:
        call(*args)

    return no_result


def link(
    imports: Iterable[tuple[str, str, str, FunctionSignature | None]],
    version: AbiVersion,
    vm: object,
    guest: Guest,
    allowed: Container[str] | None = None,
    unknown_imports: Literal["error", "stub"] = "error",
    hostcalls: Iterable[CustomHostcall] = (),
) -> Iterator[tuple[str, str, Signature, Callable[..., Any]]]:
    """Yield module, name, type and function of each import, in order.

    `allowed` has the names of the capabilities that the embedder allows; ``None`` allows all. A call of another one is
    refused (``capabilityAllowed`` in ``wasm.h`` of Envoy's host). `hostcalls` are those of the embedder.

    Raises: ModuleError, for an import that is unknown, is not a function, or has another type.
    """
    custom = {one.name: one for one in hostcalls}
    for module, name, kind, signature in imports:
        if name in custom:
            row, stub = _offer(module, name, kind, signature, version, unknown_imports, custom)
        else:
            row, stub = _offer_of_ours(module, name, kind, signature, version, unknown_imports)
        signature = cast("FunctionSignature", signature)
        if allowed is not None and name not in allowed and row.returns:
            call = bind_refusal(row, guest, row.restricted, f"this plugin is not allowed to use the capability {name}")
        elif stub is not None:
            call = bind_refusal(row, guest, stub, f"{name} is unknown to this host")
        else:
            if module in WASI_MODULES:
                handler = WASI_HANDLERS[name]
            else:
                handler = custom[name].bound() if name in custom else HANDLERS[name]
            call = bind(row, version, handler, vm, guest)
        yield module, name, signature, call if signature[1] else _without_result(call)


def check_exports(exports: Sequence[tuple[str, str, FunctionSignature | None]], version: AbiVersion) -> str:
    """Check the exports of a module before it is instantiated. Returns the name of its allocator.

    Raises: ModuleError, if a known callback or a start export has a wrong type, or the memory or an allocator is
    missing.
    """
    functions = {name: signature for name, kind, signature in exports if kind == "function"}
    known = {row.name: row for row in CALLBACKS if row.since <= version <= row.until}
    for name, row in known.items():
        signature = functions.get(name)
        expected = (I32 * len(row.params), I32 if row.result else ())
        if signature is not None and signature != expected:
            raise ModuleError(
                f"export {name} has the type {signature_text(signature)}, "
                f"but in ABI {version} it is {signature_text(expected)}: is the marker {version.marker} right?"
            )
    for name, params in STARTS.items():
        signature = functions.get(name)
        if signature is not None and (signature[0] != params or signature[1] not in ((), I32)):
            raise ModuleError(
                f"export {name} has the type {signature_text(signature)}, and is called as "
                f"{signature_text((params, I32))} or {signature_text((params, ()))} when the module starts"
            )
    if not any(kind == "memory" and name == "memory" for name, kind, _ in exports):
        raise ModuleError("the module exports no memory under the name 'memory', so a host cannot use it")
    for name in ALLOCATORS:
        if name in functions:
            if functions[name] != (I32, I32):
                raise ModuleError(f"export {name} is not an allocator: it is not of the type (i32) -> (i32)")
            return name
    raise ModuleError(
        "the module has no allocator: it exports neither proxy_on_memory_allocate nor malloc. "
        "Link the SDK's allocator in, or export malloc"
    )

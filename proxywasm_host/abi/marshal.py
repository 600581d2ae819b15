"""The marshaller converts between a guest's integers and a handler's values. No other code touches guest memory.

Rules, from ``exports.cc`` of Envoy's host, in this order for every hostcall:

1. A number beyond its enumeration is BAD_ARGUMENT.
2. Inputs are read. A range is valid if address + size ≤ size of memory, even if its size is 0.
3. A slot that is declared ``early`` is set to 0.
4. The handler is called. If it refuses, its status is the answer and nothing is written. `QuotaExceeded` and
   `ServiceUnavailable` are INTERNAL_FAILURE, as in Envoy when a circuit breaker stops a callout. Envoy has no other
   limits; ngx_wasm_module ends a guest when one of its memory zones is full.
5. Each result is written: the guest's allocator is called, then the bytes, the address and the size are written
   (``copyToPointerSize`` in ``wasm.h``). For an empty result the allocator is not called, and address and size are 0.
   If the allocator traps, the VM fails; if it returns 0 or a bad address, rule 6 applies.
6. For a bad address the guest gets INVALID_MEMORY_ACCESS (WASI: EFAULT), and nothing else happens.

Each row of the table is compiled to one Python function (`_source`), so that a hostcall needs no loop over its
parameters. A handler never sees an address.

With the C extension (`proxywasm_host.abi.native`), its ``Guest``, ``Calls`` and ``Hostcall`` replace the classes here,
with the same results; the Python classes remain, under names that begin with ``Python``.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Union

from proxywasm_host.abi import pairs
from proxywasm_host.abi.native import NATIVE, check_constants
from proxywasm_host.abi.table import Hostcall, Kind
from proxywasm_host.abi.types import AbiVersion, BufferType, Status
from proxywasm_host.services import QuotaExceeded, ServiceUnavailable

__all__ = [
    "BadAddress",
    "Call",
    "Calls",
    "Guest",
    "GuestMemory",
    "MalformedList",
    "Refusal",
    "RestrictedCall",
    "bind",
    "bind_refusal",
    "misuse",
]

U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
PACK_U32: Final = U32.pack_into
SHOWN: Final = 96
"""Most bytes of a value in a reason."""
RECORDED: Final = 64 * 1024
"""Most bytes of arguments and results that are kept for failure reports and shown to listeners."""
BAD_ARGUMENT: Final = int(Status.BAD_ARGUMENT)
INTERNAL_FAILURE: Final = int(Status.INTERNAL_FAILURE)
NOT_DONE: Final = (QuotaExceeded, ServiceUnavailable)
TEXT: Final = 1024
"""Most bytes that are kept of a text written in several calls."""
FDS: Final = 2
"""Number of file descriptors that can be written to."""
MAX_RANGES: Final = 1024
"""Most ranges that are gathered at once (IOV_MAX of POSIX systems). The guest gets the number of bytes taken."""


class GuestMemory(Protocol):
    """Linear memory, as `proxywasm_host.engine.protocol.Memory` describes it."""

    view: memoryview

    def refresh(self) -> bool:
        """Update the view after memory may have moved. Returns whether it changed."""
        ...


class NoMemory:
    """The memory of a guest that has none yet: every address is bad."""

    view = memoryview(bytearray())

    def refresh(self) -> bool:
        """Update the view after memory may have moved. Returns whether it changed."""
        return False


class BadAddress(Exception):
    """A guest gave an address or size that is not inside its memory."""


class RestrictedCall(Exception):
    """A guest made a hostcall where it may not (in its allocator, while it starts, or by `misuse`). The VM fails."""


def misuse(vm: Any, reason: str, *args: object) -> Refusal:
    """BAD_ARGUMENT, for a call without meaning in this callback. Raises: RestrictedCall, under `misuse_fails`."""
    refusal = Refusal(Status.BAD_ARGUMENT, reason, *args)
    if vm.profile.misuse_fails:
        raise RestrictedCall(refusal.reason)
    return refusal


def shown(value: object) -> object:
    """A value for a reason: bytes as text, at most `SHOWN` of them."""
    if isinstance(value, bytes):
        return value[:SHOWN].decode("utf-8", "backslashreplace") + ("…" if len(value) > SHOWN else "")
    return value


def shortened(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments, shortened for the record: a guest must not make the host keep large ones."""
    return tuple(arg[:RECORDED] if isinstance(arg, (bytes, list)) else arg for arg in args)


class Refusal:
    """A handler's answer other than OK: the status, and the reason for traces and reports.

    The reason is formatted when it is read.
    """

    __slots__ = ("_args", "_reason", "status")

    def __init__(self, status: int, reason: str, *args: object) -> None:
        self.status = status
        self._reason = reason
        self._args = args

    @property
    def reason(self) -> str:
        """The reason, in one sentence."""
        return self._reason.format(*map(shown, self._args)) if self._args else self._reason

    def about(self, reason: str) -> tuple[object, ...]:
        """The values of the reason, if `reason` is its template; else an empty tuple."""
        return self._args if self._reason == reason else ()

    def __repr__(self) -> str:
        return f"Refusal({self.status}, {self.reason!r})"


class MalformedList(list[tuple[bytes, bytes]]):
    """The empty list that stands for malformed header pairs; `reason` says what is wrong with them."""

    reason = ""


class Call(NamedTuple):
    """One hostcall of a guest, for traces and failure reports. Recorded as a plain tuple.

    `args` is ``None`` if an input could not be read; `result` is the handler's, or a `Refusal`.
    """

    row: Hostcall
    args: tuple[Any, ...] | None
    result: Any

    @property
    def status(self) -> int:
        """The status that the guest got."""
        return self.result.status if isinstance(self.result, Refusal) else 0


RecordedCall = tuple[Hostcall, Union[tuple[Any, ...], None], Any]


class Calls(deque[RecordedCall]):
    """The last `size` calls, as the fields of a `Call`; `append` can be the `record` of a `Guest`.

    Successive writes to a file descriptor are one entry, with the beginning of the text and the number of bytes, so
    that the pieces of a message do not displace all other calls.
    """

    def __init__(self, size: int) -> None:
        super().__init__(maxlen=size)

    def append(self, call: RecordedCall, /) -> None:
        """Record a call."""
        if call[2].__class__ is int and call[0].name == "fd_write" and _is_output(call):
            for back in range(-1, -min(len(self), FDS) - 1, -1):
                if not _is_output(self[back]):
                    break
                joined = _join(self[back], call)
                if joined is not None:
                    self[back] = joined
                    return
        super().append(call)


def _is_output(call: RecordedCall) -> bool:
    row, args, result = call
    return row.__class__ is Hostcall and row.name == "fd_write" and args is not None and result.__class__ is int


def _join(first: RecordedCall, second: RecordedCall) -> RecordedCall | None:
    """Two writes joined into one; ``None`` if they have different file descriptors."""
    (row, before, written), (_, after, more) = first, second
    if before is None or after is None or before[0] != after[0]:
        return None
    text = before[1] if len(before[1]) >= TEXT else (before[1] + after[1])[:TEXT]
    return row, (before[0], text), written + more


class Guest:
    """The guest's side of the marshaller: its memory, its allocator, and the hostcalls that it may make now."""

    __slots__ = ("_allocator", "allocator_may_call", "allowed", "memory", "record")

    def __init__(
        self,
        record: Callable[[tuple[Hostcall, tuple[Any, ...] | None, Any]], object],
        allocator_may_call: frozenset[str] | None,
    ) -> None:
        self.memory: GuestMemory = NoMemory()
        self.record = record
        """Called with the fields of a `Call` after each hostcall. May be changed at any time."""
        self.allowed: frozenset[str] | None = None
        """Names of the hostcalls that are allowed now; ``None`` allows all."""
        self.allocator_may_call = allocator_may_call
        self._allocator: Callable[[int], int] | None = None

    def use_allocator(self, allocator: Callable[[int], int], /) -> None:
        """Set the allocator, which is needed to return results."""
        self._allocator = allocator

    def restrict(self, name: str) -> None:
        """Refuse a hostcall that is not in `allowed`."""
        raise RestrictedCall(f"{name} was called where it may not be (in the allocator, or while the module starts)")

    def grown(self, at: int, size: int) -> memoryview:
        """A view that contains the range, if memory has grown meanwhile. Raises: BadAddress."""
        self.memory.refresh()
        view = self.memory.view
        if at + size > len(view):
            raise BadAddress(f"{size} bytes at {at:#x} are outside of the memory of {len(view)} bytes")
        return view

    def put(self, at: int, number: int, shape: struct.Struct = U32) -> None:
        """Write a number into a slot. Raises: BadAddress."""
        view = self.memory.view
        if at + shape.size > len(view):
            view = self.grown(at, shape.size)
        shape.pack_into(view, at, number)

    def put_bytes(self, value: bytes, address_slot: int, size_slot: int, *, optional: bool = False) -> None:
        """Return bytes to the guest, in memory that it allocates, and write their address and size.

        No bytes have the address 0. With `optional`, nothing is written to a slot whose own address is 0.

        Raises: BadAddress, and the exceptions of the allocator.
        """
        if optional and not (address_slot or size_slot):
            return
        size = len(value)
        address = 0
        if size:
            if self._allocator is None:
                raise BadAddress("the guest has no allocator yet")
            outer, self.allowed = self.allowed, self.allocator_may_call
            try:
                address = self._allocator(size)
            finally:
                self.allowed = outer
            if not address:
                raise BadAddress(f"the guest's allocator returned no memory for {size} bytes")
            view = self.memory.view
            if address + size > len(view):
                view = self.grown(address, size)
            view[address : address + size] = value
        else:
            view = self.memory.view
        end = len(view) - 4
        if optional or address_slot > end or size_slot > end:
            for slot, number in ((address_slot, address), (size_slot, size)):
                if slot or not optional:
                    self.put(slot, number)
            return
        PACK_U32(view, address_slot, address)
        PACK_U32(view, size_slot, size)

    def put_at(self, value: bytes, at: int) -> None:
        """Write bytes to an address of the guest. Writing none always succeeds. Raises: BadAddress."""
        size = len(value)
        if not size:
            return
        view = self.memory.view
        if at + size > len(view):
            view = self.grown(at, size)
        view[at : at + size] = value

    def put_strings(self, values: list[bytes], table: int, buffer: int) -> None:
        """Write strings one after the other, and their addresses into a table. Raises: BadAddress."""
        for value in values:
            self.put(table, buffer)
            self.put_at(value, buffer)
            table += 4
            buffer += len(value)

    def gather(self, at: int, count: int, most: int) -> bytes:
        """The first `most` bytes of the ranges in a table, of which the first `MAX_RANGES` are read.

        Ranges may overlap, so a small memory could describe more bytes than the host has. More bytes than the memory
        has are refused.

        Raises: BadAddress.
        """
        view = self.memory.view
        if at + 8 * count > len(view):
            view = self.grown(at, 8 * count)
        parts = []
        total = 0
        for address, size in struct.iter_unpack("<II", view[at : at + 8 * min(count, MAX_RANGES)]):
            if address + size > len(view):
                view = self.grown(address, size)
            total += size
            if total > len(view):
                raise BadAddress(f"the ranges have more bytes than the memory, which has {len(view)}")
            parts.append(view[address : address + min(size, max(most - total + size, 0))])
        return b"".join(parts)


def read_pairs(data: bytes) -> pairs.HeaderList:
    """Decode header pairs of a guest; malformed ones count as none, as in ``pairs_util.cc`` of Envoy's host."""
    try:
        return pairs.decode(data)
    except pairs.MalformedPairs as error:
        empty = MalformedList()
        empty.reason = f"malformed header pairs count as none: {error}"
        return empty


def highest(row_enum: type[IntEnum], version: AbiVersion) -> int:
    """The greatest member of an enumeration in a version of the ABI."""
    if row_enum is BufferType and version < AbiVersion.V0_2_100:
        return int(BufferType.CALL_DATA)
    return max(int(member) for member in row_enum)


READ: Final = {
    Kind.BYTES: "view[{0}_at:{0}_end].tobytes()",
    Kind.PAIRS: "read_pairs(view[{0}_at:{0}_end].tobytes())",
}
BEYOND: Final = "the {} has {{}} bytes, at most {{}} are taken"
WRITE: Final = {
    Kind.U32_OUT: "guest.put({0}_at, {1})",
    Kind.U64_OUT: "guest.put({0}_at, {1}, U64)",
    Kind.BYTES_OUT: "guest.put_bytes({1}, {0}_at, {0}_size)",
    Kind.PAIRS_OUT: "guest.put_bytes(encode({1}), {0}_at, {0}_size)",
    Kind.BYTES_AT: "guest.put_at({1}, {0}_at)",
    Kind.STRINGS_AT: "guest.put_strings({1}, {0}_at, {0}_size)",
}
SIGN: Final = {Kind.I32: (0x7FFFFFFF, 1 << 32), Kind.I64: (0x7FFFFFFFFFFFFFFF, 1 << 64)}


def _source(row: Hostcall, version: AbiVersion) -> Iterator[str]:
    """Lines of a function ``make(handler, vm, guest, row)`` that returns the host function of a row."""
    called, named = row.name, {f"p{place}": p.name for place, p in enumerate(row.params)}
    # Our own names, because those of the row may be any text.
    row = row._replace(params=tuple(p._replace(name=f"p{place}") for place, p in enumerate(row.params)))
    slots = ", ".join(
        {0: p.name, 1: f"{p.name}_at", 2: f"{p.name}_at, {p.name}_size"}[
            0 if p.kind in (Kind.U32, Kind.U64, Kind.I32, Kind.I64) else len(p.kind.types)
        ]
        for p in row.params
    )
    args = "".join(f"{p.name}, " for p in row.inputs)
    yield "def make(handler, vm, guest, row):"
    yield f"  def hostcall({slots}):"
    yield f"    if guest.allowed is not None and {called!r} not in guest.allowed: guest.restrict({called!r})"
    for p in row.params:
        if p.enum:
            top = highest(p.enum, version)
            yield f"    if {p.name} > {top}:"
            reason = f"{f'{named[p.name]} is {{}}, at most {top} is known'!r}, {p.name}"
            yield f"      guest.record((row, None, Refusal({BAD_ARGUMENT}, {reason})))"
            yield f"      return {BAD_ARGUMENT}"
    for p in row.inputs:
        if p.kind in SIGN:
            top, span = SIGN[p.kind]
            yield f"    if {p.name} > {top}: {p.name} -= {span}"
    reads = [p for p in row.inputs if p.kind in READ]
    yield "    args = None"
    yield "    try:"
    if reads:
        yield "      view = guest.memory.view"
    for p in row.inputs:
        if p.kind is Kind.IOVECS:
            yield f"      {p.name} = guest.gather({p.name}_at, {p.name}_size, {p.most or 1 << 32})"
        elif p.kind in READ:
            yield f"      {p.name}_end = {p.name}_at + {p.name}_size"
            yield f"      if {p.name}_end > len(view): view = guest.grown({p.name}_at, {p.name}_size)"
            if p.most:
                yield f"      if {p.name}_size > {p.most}:"
                if p.cut:
                    yield f"        {p.name}_end = {p.name}_at + {p.most}"
                elif p.kind is Kind.PAIRS:
                    yield f"        {p.name}_end = {p.name}_at + {p.most + 1}"  # enough for `decode` to refuse it
                else:
                    reason = f"{BEYOND.format(named[p.name])!r}, {p.name}_size, {p.most}"
                    yield f"        guest.record((row, None, Refusal({BAD_ARGUMENT}, {reason})))"
                    yield f"        return {BAD_ARGUMENT}"
            yield f"      {p.name} = {READ[p.kind].format(p.name)}"
    yield f"      args = ({args})"
    sizes = " + ".join(
        f"len({p.name})" if p.kind is Kind.IOVECS else f"{p.name}_size" for p in row.inputs if p.is_range
    )
    if sizes:
        yield f"      if {sizes} > {RECORDED}: args = shortened(args)"
    for p in row.outputs:
        if p.early:
            yield f"      guest.put({p.name}_at, 0)"
    yield f"      result = handler(vm, {args})"
    if row.outputs:
        yield "      if result.__class__ is Refusal:"
        yield "        guest.record((row, args, result))"
        yield "        return result.status"
        for i, p in enumerate(row.outputs):
            value = "result" if len(row.outputs) == 1 else f"result[{i}]"
            write = "guest.put_bytes({1}, {0}_at, {0}_size, optional=True)" if p.optional else WRITE[p.kind]
            yield f"      {write.format(p.name, value)}"
        if row.outputs[0].kind is Kind.PAIRS_OUT:
            yield "      result = list(result)"
        if row.outputs[0].kind is Kind.BYTES_OUT and len(row.outputs) == 1:
            yield f"      if len(result) > {RECORDED}: result = result[:{RECORDED}]"
    yield "    except BadAddress as error:"
    yield f"      guest.record((row, args, Refusal({int(row.memory_error)}, str(error))))"
    yield f"      return {int(row.memory_error)}"
    yield "    except NOT_DONE as error:"
    yield f"      guest.record((row, args, Refusal({INTERNAL_FAILURE}, str(error))))"
    yield f"      return {INTERNAL_FAILURE}"
    yield "    guest.record((row, args, result))"
    yield "    return 0" if row.outputs else "    return 0 if result is None else result.status"
    yield f"  hostcall.__name__ = {called!r}"
    yield "  return hostcall"


@lru_cache(None)
def _compiled(row: Hostcall, version: AbiVersion) -> Callable[..., Callable[..., int]]:
    scope: dict[str, Any] = {
        "BadAddress": BadAddress,
        "NOT_DONE": NOT_DONE,
        "Refusal": Refusal,
        "shortened": shortened,
        "U64": U64,
        "encode": pairs.encode,
        "read_pairs": read_pairs,
    }
    exec(compile("\n".join(_source(row, version)), f"<hostcall {row.name}>", "exec"), scope)  # noqa: S102
    make: Callable[..., Callable[..., int]] = scope["make"]
    return make


def bind_in_python(
    row: Hostcall, version: AbiVersion, handler: Callable[..., Any], vm: object, guest: Guest
) -> Callable[..., int]:
    """The host function of a row, which accepts the guest's integers and returns the status.

    `handler` is called as ``handler(vm, *inputs)``. It returns a `Refusal`, or for OK the result of the row: ``None``
    without any, a tuple of several.
    """
    return _compiled(row, version)(handler, vm, guest, row)


KINDS: Final = tuple(Kind)
check_constants(RECORDED=RECORDED, TEXT=TEXT, FDS=FDS, MAX_RANGES=MAX_RANGES)
check_constants(BAD_ARGUMENT=BAD_ARGUMENT, INTERNAL_FAILURE=INTERNAL_FAILURE)
check_constants(OK=Status.OK, NOT_FOUND=Status.NOT_FOUND, **{kind.name: number for number, kind in enumerate(KINDS)})


@lru_cache(None)
def _plan(row: Hostcall, version: AbiVersion) -> tuple[tuple[str, int, bool, bool, bool, int, int, bool], ...]:
    """The parameters of a row, in the form that the extension accepts."""
    return tuple(
        (
            p.name,
            KINDS.index(p.kind),
            p.kind.is_result,
            p.early,
            p.optional,
            highest(p.enum, version) if p.enum else -1,
            p.most,
            p.cut,
        )
        for p in row.params
    )


def bind_natively(
    row: Hostcall, version: AbiVersion, handler: Callable[..., Any], vm: object, guest: Guest
) -> Callable[..., int]:
    """The host function of a row as an object of the extension; engines use its attribute `native_entry`."""
    none_is_empty = version == AbiVersion.V0_1_0
    plan = _plan(row, version)
    call: Callable[..., int] = NATIVE.Hostcall(
        row, row.name, plan, int(row.memory_error), none_is_empty, handler, vm, guest
    )
    return call


def bind_refusal(row: Hostcall, guest: Guest, status: int, reason: str) -> Callable[..., int]:
    """A host function that refuses every call and ignores its arguments."""
    call = (row, None, Refusal(status, reason))

    def refuse(*_: int) -> int:
        guest.record(call)
        return status

    return refuse


PythonGuest, PythonCalls = Guest, Calls
bind = bind_in_python
if not TYPE_CHECKING and NATIVE is not None:
    NATIVE.use(
        refusal=Refusal,
        restricted_call=RestrictedCall,
        read_pairs=read_pairs,
        encode=pairs.encode,
        no_memory=NoMemory(),
        not_done=NOT_DONE,
    )
    Guest, Calls, bind = NATIVE.Guest, NATIVE.Calls, bind_natively

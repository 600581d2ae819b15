"""The trampolines of one module, host → guest and guest → host, generated as Python source and compiled once.

A call through ctypes is fast if it needs no lookups and no conversions. So one function ``link`` is generated for each
module. Each instance calls it once, and gets a factory of closures for each type of an export or import, without loops
over parameters. All closures of an instance share its cells, above all `depth`, which is

* 0 while no thread is in the guest,
* *n* > 0 while guest code runs, *n* calls deep: the thread inside runs no Python, so a call now comes from another
  thread and is refused,
* *-n* while a host function runs, called by the guest at depth *n*: only the thread `owner_thread` may enter the guest.

The page of `bridge` carries arguments and answers, each in one place. The callee reads the arguments before any other
call can overwrite them, and the caller does the same with the answer. The route determines how the guest is entered,
see `routes.Lowering`.
"""

from __future__ import annotations

import struct
import types
from collections.abc import Callable, Sequence
from ctypes import c_double, c_float, c_int, c_ubyte, c_uint32, c_uint64, c_void_p
from functools import lru_cache
from textwrap import indent
from threading import get_ident
from typing import Any

from proxywasm_host.engine.exception_table import extend_try_within
from proxywasm_host.engine.protocol import FunctionType, HostFunction
from proxywasm_host.engine.recursion import headroom

from .bridge import ANSWER, ARGUMENTS, PAGE, UNANSWERED
from .errors import MAX_NESTED, NESTED_TOO_DEEPLY, another_thread, closed
from .routes import Calls, Isolate, Link, Lowering

__all__ = ["link"]

_HEADROOM = 6
"""Depth of the Python calls with which a route cleans up after a failed call, and a margin."""
_SLOT, _ARGUMENT = ANSWER // 8, ARGUMENTS // 8
_UNPACK = {"i32": "I4x", "i64": "Q", "f32": "f4x", "f64": "d"}
_WRITE = {"i32": "words[{0}]", "i64": "words[{0}]", "f32": "floats[{0} * 2]", "f64": "doubles[{0}]"}
_READ = {"i32": f"halves[{_SLOT * 2}]", "i64": f"words[{_SLOT}]", "f32": f"floats[{_SLOT * 2}]",
         "f64": f"doubles[{_SLOT}]"}  # fmt: skip
_TELL = {
    "i32": f"words[{_SLOT}] = {{0}}",
    "i64": f"words[{_ARGUMENT}] = {{0}}; words[{_SLOT}] = 0",
    "f32": f"floats[{_SLOT * 2}] = {{0}}; halves[{_SLOT * 2 + 1}] = 0",
    "f64": f"doubles[{_ARGUMENT}] = {{0}}; words[{_SLOT}] = 0",
    "": f"{{0}}; words[{_SLOT}] = 0",
}

_HEAD = f"""\
def link(isolate, calls, callees, busy, closed):
    depth = 0
    owner_thread = 0
    page_at = isolate.page_at
    words = (c_uint64 * {PAGE // 8}).from_address(page_at)
    halves = (c_uint32 * {PAGE // 4}).from_address(page_at)
    floats = (c_float * {PAGE // 4}).from_address(page_at)
    doubles = (c_double * {PAGE // 8}).from_address(page_at)
    arguments = memoryview((c_ubyte * {PAGE - ARGUMENTS}).from_address(page_at + {ARGUMENTS})).cast("B")
    raised = calls.raised
    recover = calls.recover
    problem = calls.problem
"""

_SHUT = """
    def refuse(*_):
        raise closed()

    def shut():
        nonlocal depth, busy, {doors}
        if busy is closed:
            return True
        if depth > 0 or depth and owner_thread != get_ident():
            raise busy()
        {doors} = (refuse,) * {count}
        if depth == 0:
            depth, busy = 1, closed
        return depth > 0
"""

_GUEST = """
    def make_guest_{type}(number):
        def guest({parameters}):
            nonlocal depth, owner_thread
            headroom()
            if depth:
                if depth > 0 or owner_thread != get_ident():
                    raise busy()
                if depth <= -{max_nested}:
                    raise RecursionError(nested_too_deeply)
{refused}
            depth = 1 - depth
            try:
                {write}
                if depth == 1:
{outermost}
                else:
{nested}
            except BaseException:
                recover(depth == 1)
                raise
            finally:
                depth = 1 - depth
            if not result or halves[0]:
                raise problem(result, depth != 0)
            {read}

        return guest
"""

_HOST = """
    def make_host_{type}(handler):
        def host():
            nonlocal depth
            try:
                depth = -depth
                {answer}
                depth = -depth
            except BaseException as error:
                depth = abs(depth)
                words[{slot}] = {unanswered}
                raised(error)

        return host
"""

_TAIL = """
    return [{guests}], [{hosts}], shut
"""


def link(
    isolate: Isolate,
    calls: Calls,
    lowering: Lowering,
    guests: Sequence[FunctionType],
    functions: Sequence[HostFunction],
) -> Link:
    """Make the trampolines of one instance."""
    outwards = tuple(dict.fromkeys(guests))
    inwards = tuple(dict.fromkeys(function.type for function in functions))
    callees: list[Any] = []
    make = _compile(outwards, inwards, lowering)
    make_guest, make_host, shut = make(isolate, calls, callees, another_thread, closed)
    guest, host = dict(zip(outwards, make_guest, strict=True)), dict(zip(inwards, make_host, strict=True))
    return Link(
        [guest[type](number) for number, type in enumerate(guests)],
        [host[function.type](function.call) for function in functions],
        shut,
        callees.extend,
    )


@lru_cache(maxsize=256)
def _compile(
    guests: tuple[FunctionType, ...], hosts: tuple[FunctionType, ...], lowering: Lowering
) -> Callable[..., tuple[list[Any], list[Any], Callable[[], bool]]]:
    """Make the function ``link`` for exports of the types `guests` and imports of the types `hosts`.

    Neither has duplicates.

    ``link`` returns three results. For each of `guests`, a factory of guest functions, which accept plain numbers and
    call an element of ``callees``. For each of `hosts`, a factory of host functions, which read their arguments from
    the page and call a handler. And ``shut``, which makes all guest functions refuse calls, and returns whether no call
    is active. The arguments ``busy`` and ``closed`` make the errors of a call while another thread is inside, and of
    one after ``shut``.
    """
    doors = ", ".join(lowering.doors)
    names: dict[str, Any] = {
        "nested_too_deeply": NESTED_TOO_DEEPLY,
        "get_ident": get_ident,
        "headroom": headroom(_HEADROOM),
        "c_ubyte": c_ubyte,
        "c_int": c_int,
        "c_uint32": c_uint32,
        "c_uint64": c_uint64,
        "c_float": c_float,
        "c_double": c_double,
        "c_void_p": c_void_p,
    }
    source = [_HEAD, indent(lowering.prelude, " " * 4), _SHUT.format(doors=doors, count=len(lowering.doors))]
    source += [_guest(i, type, lowering) for i, type in enumerate(guests)]
    for i, type in enumerate(hosts):
        source.append(_host(i, type))
        names[f"unpack_{i}"] = struct.Struct("<" + "".join(map(_UNPACK.__getitem__, type.params))).unpack_from
    source.append(
        _TAIL.format(
            guests=", ".join(f"make_guest_{i}" for i in range(len(guests))),
            hosts=", ".join(f"make_host_{i}" for i in range(len(hosts))),
        )
    )
    exec(compile("".join(source), "<v8 trampolines>", "exec"), names)  # noqa: S102 - the source is our own
    link: types.FunctionType = names["link"]
    link.__code__ = extend_try_within(link.__code__, "host")
    return link


def _guest(i: int, type: FunctionType, lowering: Lowering) -> str:
    names = [f"a{n}" for n in range(len(type.params))]
    writes = [_WRITE[kind].format(_ARGUMENT + n) + f" = {names[n]}" for n, kind in enumerate(type.params)]
    return _GUEST.format(
        type=i,
        max_nested=MAX_NESTED,
        parameters=", ".join(names),
        refused=indent(lowering.refused, " " * 16),
        write="\n                ".join(writes or ["pass"]),
        outermost=indent(lowering.outermost, " " * 20),
        nested=indent(lowering.nested, " " * 20),
        read=f"return {_READ[type.results[0]]}" if type.results else "",
    )


def _host(i: int, type: FunctionType) -> str:
    call = f"handler(*unpack_{i}(arguments))" if type.params else "handler()"
    answer = _TELL["".join(type.results)].format(call)
    return _HOST.format(type=i, answer=answer, slot=_SLOT, unanswered=UNANSWERED)

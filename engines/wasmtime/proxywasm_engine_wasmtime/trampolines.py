"""The trampolines of one module, host → guest and guest → host, generated as Python source and compiled once.

A call through ctypes is fast if it needs no lookups and no conversions. So one function ``link`` is generated for each
module. Each instance calls it once, and gets a factory of closures for each type of an export or import, without loops
over parameters. All closures of an instance share its cells, above all `depth`, which is

* 0 while no thread is in the guest,
* *n* > 0 while guest code runs, *n* calls deep: the thread inside runs no Python, so a call now comes from another
  thread and is refused,
* *-n* while a host function runs, called by the guest at depth *n*: only the thread `owner_thread` may enter the guest.

Values are passed in slots of 16 bytes, little endian. Nested calls of a guest function share its slots, which is safe:
Wasmtime reads all arguments before the guest runs, and writes the result after all nested calls have returned.
"""

from __future__ import annotations

import struct
import types
from collections.abc import Callable
from ctypes import byref, c_char, c_double, c_float, c_uint32, c_uint64
from functools import lru_cache
from threading import get_ident
from typing import Any

from proxywasm_host.engine.exception_table import extend_try_within
from proxywasm_host.engine.protocol import FunctionType
from proxywasm_host.engine.recursion import headroom

from .errors import MAX_NESTED, NESTED_TOO_DEEPLY
from .signals import SEEN, bring_forward, is_enabled
from .stack import check_stack

__all__ = ["compile_link"]

_UNPACK = {"i32": "I12x", "i64": "Q8x", "f32": "f12x", "f64": "d8x"}
_WRITE = {"i32": "words[{0} * 2]", "i64": "words[{0} * 2]", "f32": "floats[{0} * 4]", "f64": "doubles[{0} * 2]"}
_READ = {"i32": "halves[0]", "i64": "words[0]", "f32": "floats[0]", "f64": "doubles[0]"}
_ANSWER = {
    "i32": "view[0] = {0}",
    "i64": "c_uint64.from_address(at).value = {0}",
    "f32": "c_float.from_address(at).value = {0}",
    "f64": "c_double.from_address(at).value = {0}",
}
_MAX_VIEWS = 1024  # the slots of each depth have another address, and guest stacks may be deep
# Endless nesting is detected when slots have a new address, because each deeper call has other slots.
_HEADROOM = 3
"""Depth of the Python calls with which a host function reports an exception, or a guest function cleans up."""

_HEAD = """\
def link(invoke, context, trap, trap_at, failed, forget, raised, arrived, refuse, busy, watch):
    depth = 0
    owner_thread = 0
    views = {}

    def shut():
        nonlocal invoke
        if depth > 0 or depth and owner_thread != get_ident():
            raise busy()
        invoke = refuse
        return depth == 0
"""

_GUEST = """
    def make_guest_{i}():
        function = (c_uint64 * 2)()
        function_at = byref(function)
        words = (c_uint64 * {words})()
        halves = (c_uint32 * {words}).from_buffer(words)
        floats = (c_float * {words}).from_buffer(words)
        doubles = (c_double * {words}).from_buffer(words)
        slots_at = byref(words)
        count = byref(c_char.from_address({count}))

        def guest({parameters}):
            nonlocal depth, owner_thread
            headroom()
            if depth > 0 or depth and owner_thread != get_ident():
                raise busy()
            {write}
            depth = 1 - depth
            try:
                if depth == 1:
                    if owner_thread != get_ident():
                        check_stack()
                        owner_thread = get_ident()
                    if is_enabled() is not seen[0]:
                        bring_forward(){enter}
                error = invoke(context, function_at, slots_at, count, trap_at)
            except BaseException:
                forget()
                raise
            finally:
                depth = 1 - depth
            if error or trap:
                raise failed(error)
            {read}

        return guest, function
"""
# `count` is passed as a pointer with this address: a size_t argument that ctypes passes without conversion.
# `invoke` raises only if Python handles an interrupt (Ctrl-C) when it returns; then there may be a trap or an error.

_WATCHED = """
                    watch.enter()"""

_HOST = """
    def make_host_{i}(handler):
        def host(environment, caller, at, count):
            nonlocal depth
            try:
                depth = -depth
                view = views.get(at)
                if view is None:
                    arrived(caller)
                    if depth < -max_nested:
                        raise RecursionError(nested_too_deeply)
                    if len(views) >= {max_views}:
                        views.clear()
                    view = views[at] = View(at)
                {answer}
                depth = -depth
            except BaseException as error:
                depth = abs(depth)
                return raised(error)

        return host
"""

_TAIL = """
    return [{guests}], [{hosts}], shut
"""


@lru_cache(maxsize=256)
def compile_link(
    guests: tuple[FunctionType, ...], hosts: tuple[FunctionType, ...], *, watched: bool
) -> Callable[..., tuple[list[Any], list[Any], Callable[[], bool]]]:
    """Make the function ``link`` for exports of the types `guests` and imports of the types `hosts`.

    Neither has duplicates. ``link`` returns three results. For each of `guests`, a factory of guest functions, which
    accept plain numbers, and of the 16 bytes into which the caller copies the ``wasmtime_func_t``. For each of `hosts`,
    a factory that makes a host function of a handler; the caller makes a ctypes callback of it. And ``shut``, which
    makes all guest functions refuse calls, and returns whether no call is active. If `watched`, ``watch.enter()`` runs
    before each outermost call.
    """
    names: dict[str, Any] = {
        "bring_forward": bring_forward,
        "byref": byref,
        "check_stack": check_stack,
        "get_ident": get_ident,
        "headroom": headroom(_HEADROOM),
        "is_enabled": is_enabled,
        "max_nested": MAX_NESTED,
        "nested_too_deeply": NESTED_TOO_DEEPLY,
        "c_char": c_char,
        "c_uint32": c_uint32,
        "c_uint64": c_uint64,
        "c_float": c_float,
        "c_double": c_double,
        "seen": SEEN,
        # Long enough for any import: each host function reads only its own arguments.
        "View": (c_uint32 * (4 * max([1, *(len(type.params) for type in hosts)]))).from_address,
    }
    source = [_HEAD]
    source += [_guest(i, type, watched=watched) for i, type in enumerate(guests)]
    for i, type in enumerate(hosts):
        source.append(_host(i, type))
        names[f"unpack_{i}"] = struct.Struct("<" + "".join(map(_UNPACK.__getitem__, type.params))).unpack_from
    source.append(
        _TAIL.format(
            guests=", ".join(f"make_guest_{i}" for i in range(len(guests))),
            hosts=", ".join(f"make_host_{i}" for i in range(len(hosts))),
        )
    )
    exec(compile("".join(source), "<wasmtime trampolines>", "exec"), names)  # noqa: S102 - the source is our own
    link: types.FunctionType = names["link"]
    link.__code__ = extend_try_within(link.__code__, "host")
    return link


def _guest(i: int, type: FunctionType, *, watched: bool) -> str:
    slots = max(len(type.params), len(type.results))
    names = [f"a{n}" for n in range(len(type.params))]
    writes = [_WRITE[kind].format(n) + f" = {names[n]}" for n, kind in enumerate(type.params)]
    return _GUEST.format(
        i=i,
        words=4 * max(slots, 1),
        count=slots,
        parameters=", ".join(names),
        write="\n            ".join(writes),
        enter=_WATCHED if watched else "",
        read=f"return {_READ[type.results[0]]}" if type.results else "",
    )


def _host(i: int, type: FunctionType) -> str:
    call = f"handler(*unpack_{i}(view))" if type.params else "handler()"
    answer = _ANSWER[type.results[0]].format(call) if type.results else call
    return _HOST.format(i=i, max_views=_MAX_VIEWS, answer=answer)

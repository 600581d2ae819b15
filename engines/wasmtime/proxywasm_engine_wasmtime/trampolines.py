"""The trampolines of one module, host → guest and guest → host, written out as Python source and compiled once.

Calling through ctypes costs little if nothing is looked up or converted on the way. So for each module one function
``link`` is generated. Each instance calls it once, and gets for each type of an export or import what makes closures in
which arity and types are unrolled. All closures of an instance share its cells, above all `depth`, which is

* 0 while nobody is in the guest,
* *n* > 0 while guest code runs, *n* calls deep: the one thread inside executes no Python, so whoever calls now is
  another thread and is refused,
* *-n* while a host function runs, called by the guest that is *n* calls deep: only the thread `owner_thread` may go in.

Values cross in slots of 16 bytes, little endian. Each guest function owns its slots. That is safe however calls nest:
Wasmtime reads all arguments before the guest runs, and writes the result after everything nested has returned.
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
_MAX_VIEWS = 1024  # guest stacks are deep at times, and each depth has its own address
# Looking at slots in a new place is the moment to end endless nesting, since deeper calls have theirs elsewhere.
_HEADROOM = 3
"""Calls within each other that a host function makes to tell what was raised, or a guest function to clear it away."""

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
# `count` is passed as a pointer to that address: a size_t argument that ctypes need not convert.
# What invoke can raise is an interrupt (Ctrl-C) that Python took up on return; it leaves a trap or an error behind.

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
    """Make the function ``link`` for exports of the types `guests` and imports of the types `hosts`, each given once.

    ``link`` returns, for each of `guests`, what makes a guest function (a callable of plain numbers) and the place of
    16 bytes into which its ``wasmtime_func_t`` has to be copied; for each of `hosts`, what makes of a handler a host
    function (to be made into a ctypes callback); and ``shut``, which makes every guest function refuse and tells
    whether nobody is inside. If `watched`, ``watch.enter()`` runs before each outermost call.
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
        # Long enough for any import: a view only serves to reach what is there.
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
    exec(compile("".join(source), "<wasmtime trampolines>", "exec"), names)  # noqa: S102 - the text is all our own
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

"""Lua: the plugin ``plugin.lua`` in this process through lupa (LuaJIT 2.1), and in a separate LuaJIT.

With lupa, a table like Kong's can be made in two ways, both of which are measured: its functions are Python's and work
on Python's lists, or they are Lua's (``kong.lua``) and the header maps are passed in and out once for each phase.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.contenders.kong import Kong
from benchmarks.contenders.line_protocol import OtherProgram, running
from benchmarks.headers import REQUEST, RESPONSE, HeaderList
from benchmarks.timing import InProcess

HERE = Path(__file__).parent

# A header map is passed in as arguments and out as results. That is cheaper than a table, read item by item in Python.
CROSSING = b"""
function(phase)
  return function(method, ...)
    local map = {...}
    phase(method, map)
    return unpack(map)
  end
end
"""


@contextmanager
def lua_headers() -> Iterator[InProcess]:
    """`kong` in Lua: header maps cross between the languages, hostcalls do not."""
    from lupa.luajit21 import LuaRuntime  # noqa: PLC0415 - LuaJIT is loaded only where it is used

    lua = LuaRuntime(encoding=None)
    plugin = lua.execute((HERE / "plugin.lua").read_bytes())
    phase = lua.eval(CROSSING)(lua.compile((HERE / "kong.lua").read_bytes())(plugin))

    def one_request() -> tuple[HeaderList, HeaderList]:
        return through(b"access", REQUEST), through(b"header_filter", RESPONSE)

    def through(method: bytes, headers: HeaderList) -> HeaderList:
        changed = iter(phase(method, *[part for pair in headers for part in pair]))
        return list(zip(changed, changed, strict=True))

    yield InProcess(one_request)


@contextmanager
def python_headers() -> Iterator[InProcess]:
    """`kong` in Python: each hostcall crosses between the languages, header maps do not."""
    from lupa.luajit21 import LuaRuntime  # noqa: PLC0415 - as above

    lua = LuaRuntime(encoding=None)
    kong = Kong()
    table: dict[bytes, Any] = {}
    for path, method in kong.methods.items():
        *parents, name = path.split(b".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = method
    lua.globals()[b"kong"] = lua.table_from(table[b"kong"], recursive=True)
    plugin = lua.execute((HERE / "plugin.lua").read_bytes())
    access, header_filter = plugin[b"access"], plugin[b"header_filter"]

    def one_request() -> tuple[HeaderList, HeaderList]:
        kong.headers = request = list(REQUEST)
        access(plugin)
        kong.headers = response = list(RESPONSE)
        header_filter(plugin)
        return request, response

    yield InProcess(one_request)


@contextmanager
def standalone() -> Iterator[OtherProgram]:
    """LuaJIT without Python. Raises: RuntimeError, if it is not installed."""
    if shutil.which("luajit") is None:
        raise RuntimeError("LuaJIT is not installed: it is in Debian's package luajit.")
    with running(["luajit", "standalone.lua"], HERE) as program:
        yield program

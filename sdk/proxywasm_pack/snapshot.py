"""Snapshots: modules whose memory is that after the top level of a script has run, so that they start at once."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from typing import Any

from proxywasm_host.engine.cache import ModuleCache, default_directory
from proxywasm_host.engine.protocol import HostFunction, Limits, Trap
from proxywasm_host.engine.registry import open_engine
from proxywasm_host.errors import ModuleError
from proxywasm_pack import wasm

__all__ = ["ScriptError", "snapshot"]

LOG, ADDRESS_OF_TIME = "proxy_log", "proxy_get_current_time_nanoseconds"
HIDDEN = {b"_initialize", b"pw_run", b"pw_file", b"pw_heap_limit"}
EXPORTS, GLOBALS, MEMORY, DATA, DATA_COUNT, CUSTOM = 7, 6, 5, 11, 12, 0
GAP = 24  # zeros kept within one segment, since another segment costs some bytes as well


class ScriptError(ModuleError):
    """A script cannot be packed. The message says where, and what to write instead."""


def snapshot(
    runtime: bytes, files: Iterable[tuple[str, str]], statements: str, heap: int, engine: str | None = None
) -> bytes:
    """The module `runtime` after it has run `statements`, which may import `files` (path, source).

    `heap` limits the memory of Python objects, in bytes. Raises: ScriptError with the traceback; EngineUnavailable.
    """
    output: list[str] = []
    memory: Any = None

    def import_function(module: str, name: str) -> Callable[..., Any]:
        def log(level: int, address: int, size: int) -> int:
            memory.refresh()
            output.append(bytes(memory.view[address : address + size]).decode())
            return 0

        def time(address: int) -> int:
            memory.refresh()
            memory.view[address : address + 8] = struct.pack("<Q", 0)
            return 0

        def refuse(*arguments: int) -> int:
            return 12  # Unimplemented

        known: dict[str, Callable[..., int]] = {LOG: log, ADDRESS_OF_TIME: time}
        return known.get(name, refuse)

    compiled = ModuleCache(default_directory()).load(open_engine(engine), runtime)
    functions = [
        HostFunction(i.module, i.name, i.type, import_function(i.module, i.name)) for i in compiled.imports if i.type
    ]
    instance = compiled.instantiate(functions, Limits(memory=256 << 20, deadline=60))
    memory = instance.memory

    def function(name: str) -> Callable[..., Any]:
        found = instance.function(name)
        assert found is not None, name
        return found

    def put(text: str) -> tuple[int, int]:
        data = text.encode()
        address: int = function("proxy_on_memory_allocate")(len(data) + 1)
        memory.refresh()
        memory.view[address : address + len(data)] = data
        return address, len(data)

    try:
        function("_initialize")()
        function("pw_heap_limit")(heap)
        for path, source in files:
            function("pw_file")(*put(path), *put(source))
        good = function("pw_run")(*put(statements), 1)
        if not good:
            raise ScriptError("\n".join(output))
        memory.refresh()
        content = bytes(memory.view)
    except Trap as trap:
        raise ScriptError("\n".join([*output, f"the script does not end well at its top level: {trap}"])) from None
    finally:
        instance.close()
    return _with_memory(runtime, content)


def _with_memory(runtime: bytes, content: bytes) -> bytes:
    pages = len(content) >> 16
    runs = re.finditer(rb"[^\0](?:\0{0,%d}[^\0])*" % GAP, content, re.DOTALL)
    segments = [(run.start(), run.group()) for run in runs]
    out = []
    for number, section in wasm.sections(runtime):
        if number == MEMORY:
            count, at = wasm.read_unsigned(section, 0)
            flags = section[at]
            _, rest = wasm.read_unsigned(section, at + 1)
            section = wasm.unsigned(count) + bytes([flags]) + wasm.unsigned(pages) + section[rest:]
        elif number == DATA:
            section = wasm.data_section(segments)
        elif number == DATA_COUNT:
            section = wasm.unsigned(len(segments))
        elif number == EXPORTS:
            section = wasm.exports(section, dict.fromkeys(HIDDEN))
        elif number == CUSTOM:
            continue
        out.append((number, section))
    return wasm.module(out)

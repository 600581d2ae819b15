"""Runs a filter in Python under CPython in the complete host: an engine that runs the script itself.

Each VM imports the script with its own copy of `proxywasm`, so a debugger stops in it. Hostcalls take the same path as
those of other engines, through a memory made for them. The fixture `proxywasm` of the pytest plugin accepts the engine
``cpython``; `Harness(CPythonEngine())` loads ``module_of(path)``.

Differences from the packed filter: each VM imports the script when it starts; nothing limits memory, recursion or
time; and the digits of floats and the messages of built-in exceptions are CPython's.
"""

from __future__ import annotations

import ast
import importlib.util
import struct
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from proxywasm_host.engine.cache import ModuleCache, default_directory
from proxywasm_host.engine.protocol import Capabilities, Export, HostFunction, Import, InvalidModule, Limits, LinkError
from proxywasm_host.engine.registry import open_engine
from proxywasm_pack import REDIS, imports, runtime, wasm

__all__ = ["CPythonEngine", "module_of"]

SECTION = b"\x10proxywasm-script"  # a custom section: the size of its name, its name
MEMORY = 64 << 20  # bytes; emptied when the outermost callback returns
BEGIN = 1024
CALLBACKS = {
    "proxy_on_vm_start": 1, "proxy_on_configure": 1, "proxy_on_context_create": None, "proxy_on_tick": None,
    "proxy_on_queue_ready": None, "proxy_on_new_connection": 0, "proxy_on_downstream_data": 0, "proxy_on_upstream_data": 0,
    "proxy_on_downstream_connection_close": None, "proxy_on_upstream_connection_close": None,
    "proxy_on_request_headers": 0, "proxy_on_request_body": 0, "proxy_on_request_trailers": 0,
    "proxy_on_response_headers": 0, "proxy_on_response_body": 0, "proxy_on_response_trailers": 0,
    "proxy_on_http_call_response": None, "proxy_on_grpc_receive_initial_metadata": None, "proxy_on_grpc_receive": None,
    "proxy_on_grpc_receive_trailing_metadata": None, "proxy_on_grpc_close": None, "proxy_on_foreign_function": None,
    "proxy_on_done": 1, "proxy_on_log": None, "proxy_on_delete": None, "proxy_on_redis_call_response": None,
}  # fmt: skip
"""The callbacks in the order of the SDK's handlers, with the result for a filter without a handler; None: no result."""
NOT_FOUND, BAD_ARGUMENT, EMPTY = 1, 2, 7
GONE_ON = "these headers have gone on, or are not there yet"


def module_of(path: str | Path) -> bytes:
    """A module that names the script at `path`, for a `CPythonEngine` to load."""
    path = Path(path).resolve()
    return runtime(redis=_wants_redis(path, set())) + _section(SECTION + str(path).encode())


def _wants_redis(path: Path, seen: set[Path]) -> bool:
    """Whether a script, or a module in its folder that it imports, uses Redis."""
    seen.add(path)
    names = {name for name, _ in imports(ast.parse(path.read_bytes()))}
    beside = {path.parent / f"{name}.py" for name in names} - seen
    return REDIS in names or any(_wants_redis(one, seen) for one in beside if one.exists())


def _section(content: bytes) -> bytes:
    return b"\0" + wasm.unsigned(len(content)) + content


class CPythonEngine:
    """An engine that accepts only the modules of `module_of`."""

    name: ClassVar[str] = "cpython"
    priority: ClassVar[int] = 0
    version = sys.version.partition(" ")[0]
    fingerprint = "cpython"
    capabilities = Capabilities()
    note = "for tests of filters in Python"
    module_of = staticmethod(module_of)

    def compile(self, bytecode: bytes) -> Script:
        """The script that a module of `module_of` names. Raises: InvalidModule, for any other module."""
        for number, content in wasm.sections(bytecode):
            if number == 0 and content.startswith(SECTION):
                return Script(Path(content.removeprefix(SECTION).decode()), bytecode[: -len(_section(content))])
        raise InvalidModule("the engine cpython runs scripts in Python, not WebAssembly: give it a .py")

    def deserialise(self, compiled: bytes) -> Script:
        """Raises: InvalidModule, always: nothing compiled is stored."""
        raise InvalidModule("the engine cpython keeps nothing compiled")


class Script:
    """A script that each instance imports."""

    def __init__(self, path: Path, bytecode: bytes) -> None:
        self.path = path
        module = ModuleCache(default_directory()).load(open_engine(), bytecode)
        self.imports: Sequence[Import] = module.imports
        self.exports: Sequence[Export] = module.exports

    def instantiate(
        self, functions: Sequence[HostFunction], limits: Limits, bind: Callable[[Running], None] | None = None
    ) -> Running:
        running = Running(functions)
        if bind is not None:
            bind(running)
        try:
            running.run(self.path)
        except Exception as error:
            raise LinkError(f"{self.path.name} does not end well at its top level: {error!r}") from error
        return running

    def serialise(self) -> bytes:
        raise NotImplementedError


class Room:
    """The memory through which host and script pass data to each other, allocated in order."""

    def __init__(self) -> None:
        self.data = bytearray(MEMORY)
        self.view = memoryview(self.data)
        self.end = BEGIN

    def refresh(self) -> bool:
        return False

    def allocate(self, size: int) -> int:
        at = self.end
        self.end += size + 8 - size % 8
        if self.end > MEMORY:
            raise MemoryError
        return at


class Running:
    """An instance: an imported script and its callbacks."""

    def __init__(self, functions: Sequence[HostFunction]) -> None:
        self.memory = Room()
        self.hostcalls = Hostcalls(self.memory, {function.name: function.call for function in functions})
        self._inside = 0

    def run(self, path: Path) -> None:
        """Import the script, and its own copies of the modules in its folder."""
        with _own_modules(path.parent, self.hostcalls):
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)

    def function(self, name: str) -> Callable[..., Any] | None:
        if name == "proxy_on_memory_allocate":
            return self.memory.allocate
        if name not in CALLBACKS:
            return lambda *_: None
        number, otherwise = list(CALLBACKS).index(name), CALLBACKS[name]

        def call(*arguments: int) -> int | None:
            handler = self.hostcalls.callbacks[number]
            if handler is None:
                return otherwise
            self._inside += 1
            try:
                answer = handler(*arguments)
            finally:
                self._inside -= 1
                if not self._inside:
                    self.memory.end = BEGIN
            return otherwise if otherwise is None or answer is None else int(answer)

        return call

    def close(self) -> None:
        self.hostcalls.callbacks = [None] * len(CALLBACKS)


@contextmanager
def _own_modules(folder: Path, hostcalls: Hostcalls) -> Iterator[None]:
    """While active, imports make new copies of the SDK, which use `hostcalls`, and of the modules in `folder`.

    Afterwards `sys.modules` is as it was before.
    """
    before = dict(sys.modules)
    for name, module in before.items():
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] == "proxywasm" or Path(file).parent == folder:
            del sys.modules[name]
    clock = types.ModuleType("time")
    clock.__dict__.update(vars(time))
    clock.time_ns = hostcalls.time_ns  # type: ignore[attr-defined]
    clock.time = lambda: hostcalls.time_ns() / 1e9  # type: ignore[attr-defined]
    clock.monotonic = clock.perf_counter = clock.time  # type: ignore[attr-defined]
    clock.monotonic_ns = clock.perf_counter_ns = clock.time_ns  # type: ignore[attr-defined]
    sys.path.insert(0, str(folder))
    try:
        from proxywasm import _fake

        _fake.install(hostcalls)
        sys.modules["time"] = clock
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == "proxywasm" or name not in before]:
            del sys.modules[name]
        sys.modules.update(before)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


class Hostcalls:
    """The hostcalls as functions, like those of the module `_proxywasm` in a packed filter."""

    def __init__(self, memory: Room, calls: dict[str, Callable[..., Any]]) -> None:
        self._memory = memory
        self._calls = calls
        self._error: Callable[..., Exception] = RuntimeError
        self.callbacks: list[Any] = [None] * len(CALLBACKS)

    def handlers(self, callbacks: list[Any]) -> None:
        self.callbacks = callbacks

    def error(self, error: Callable[..., Exception]) -> None:
        self._error = error

    def traceback(self, error: BaseException) -> str:
        import traceback

        lines = ["Traceback (most recent call last):"]
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename)
            name = f"proxywasm/{path.name}" if path.parent.name == "proxywasm" else path.name
            lines.append(f'  File "{name}", line {frame.lineno}, in {frame.name}')
        return "\n".join([*lines, *(line.rstrip() for line in traceback.format_exception_only(type(error), error))])

    # -- Making a hostcall ---------------------------------------------------------------------------------------

    def _put(self, data: Any) -> tuple[int, int]:
        content = data.encode() if isinstance(data, str) else bytes(data)
        at = self._memory.allocate(len(content))
        self._memory.data[at : at + len(content)] = content
        return at, len(content)

    def _call(self, name: str, *arguments: Any, fine: Sequence[int] = ()) -> int:
        """Call it, with data as address and size, and return 0 or a status in `fine`. Raises: the SDK's error."""
        words: list[int] = []
        for one in arguments:
            words.extend([one] if isinstance(one, int) else self._put(one))
        status = int(self._calls[f"proxy_{name}"](*words))
        if status and status not in fine:
            raise self._error(status, GONE_ON) if status == BAD_ARGUMENT and "header_map" in name else self._error(status)
        return status

    def _room(self, size: int = 8) -> int:
        at = self._memory.allocate(size)
        self._memory.data[at : at + size] = bytes(size)
        return at

    def _word(self, at: int, form: str = "<I") -> int:
        return int(struct.unpack_from(form, self._memory.data, at)[0])

    def _number(self, name: str, *arguments: Any, form: str = "<I") -> int:
        at = self._room()
        self._call(name, *arguments, at)
        return self._word(at, form)

    def _data(self, name: str, *arguments: Any, more: Sequence[int] = (), fine: Sequence[int] = ()) -> bytes | None:
        """The data that a hostcall returns; None for a status in `fine`, or if it returns no data."""
        at, size = self._room(), self._room()
        if self._call(name, *arguments, at, size, *more, fine=fine) or not self._word(at):
            return None
        begin = self._word(at)
        return bytes(self._memory.data[begin : begin + self._word(size)])

    # -- The functions -------------------------------------------------------------------------------------------

    def log(self, level: int, message: str) -> None:
        self._call("log", level, message)

    def log_level(self) -> int:
        return self._number("get_log_level")

    def done(self) -> None:
        self._call("done")

    def time_ns(self) -> int:
        return self._number("get_current_time_nanoseconds", form="<Q")

    def random_bytes(self, size: int) -> bytes:
        at = self._room(size)
        self._calls["random_get"](at, size)
        return bytes(self._memory.data[at : at + size])

    def tick_period(self, milliseconds: int) -> None:
        self._call("set_tick_period_milliseconds", milliseconds)

    def effective_context(self, context: int) -> None:
        self._call("set_effective_context", context)

    def get_header(self, map: int, name: str) -> str | None:
        value = self._data("get_header_map_value", map, name, fine=[NOT_FOUND])
        return None if value is None else _text(value)

    def set_header(self, map: int, name: str, value: str) -> None:
        self._call("replace_header_map_value", map, name, value)

    def add_header(self, map: int, name: str, value: str) -> None:
        self._call("add_header_map_value", map, name, value)

    def remove_header(self, map: int, name: str) -> None:
        self._call("remove_header_map_value", map, name, fine=[NOT_FOUND])

    def get_pairs(self, map: int) -> list[tuple[str, str]]:
        data = self._data("get_header_map_pairs", map, fine=[NOT_FOUND]) or b"\0" * 4
        (count,) = struct.unpack_from("<I", data)
        sizes = struct.unpack_from(f"<{2 * count}I", data, 4)
        at, texts = 4 + 8 * count, []
        for size in sizes:
            texts.append(_text(data[at : at + size]))
            at += size + 1
        return list(zip(texts[::2], texts[1::2], strict=True))

    def set_pairs(self, map: int, pairs: Any) -> None:
        self._call("set_header_map_pairs", map, _pairs(pairs))

    def get_buffer(self, type: int, start: int, size: int) -> bytes:
        return self._data("get_buffer_bytes", type, start, size, fine=[NOT_FOUND]) or b""

    def set_buffer(self, type: int, start: int, size: int, data: str | bytes) -> None:
        self._call("set_buffer_bytes", type, start, size, data)

    def continue_stream(self, type: int) -> None:
        self._call("continue_stream", type)

    def close_stream(self, type: int) -> None:
        self._call("close_stream", type)

    def local_response(self, status: int, details: str, body: bytes, headers: Any, grpc_status: int) -> None:
        self._call("send_local_response", status, details, body, _pairs(headers), grpc_status)

    def http_call(self, cluster: str, headers: Any, body: bytes, trailers: Any, timeout: int) -> int:
        return self._number("http_call", cluster, _pairs(headers), body, _pairs(trailers), timeout)

    def grpc_call(self, cluster: str, service: str, method: str, metadata: Any, message: bytes, timeout: int) -> int:
        return self._number("grpc_call", cluster, service, method, _pairs(metadata), message, timeout)

    def grpc_stream(self, cluster: str, service: str, method: str, metadata: Any) -> int:
        return self._number("grpc_stream", cluster, service, method, _pairs(metadata))

    def grpc_send(self, token: int, message: str | bytes, end: bool) -> None:
        self._call("grpc_send", token, message, int(end))

    def grpc_close(self, token: int) -> None:
        self._call("grpc_close", token)

    def grpc_cancel(self, token: int) -> None:
        self._call("grpc_cancel", token)

    def redis_init(self, cluster: str, username: str, password: str, timeout: int) -> None:
        self._call("redis_init", cluster, username, password, timeout)

    def redis_call(self, cluster: str, command: bytes) -> int:
        return self._number("redis_call", cluster, command)

    def status(self) -> tuple[int, str]:
        code, at, size = self._room(), self._room(), self._room()
        self._call("get_status", code, at, size)
        begin = self._word(at)
        return self._word(code), _text(bytes(self._memory.data[begin : begin + self._word(size)]))

    def get_property(self, path: str) -> bytes | None:
        return self._data("get_property", path, fine=[NOT_FOUND])

    def set_property(self, path: str, value: str | bytes) -> None:
        self._call("set_property", path, value)

    def get_shared(self, key: str) -> tuple[bytes, int] | None:
        cas = self._room()
        at, size = self._room(), self._room()
        if self._call("get_shared_data", key, at, size, cas, fine=[NOT_FOUND]):
            return None
        begin = self._word(at)
        return bytes(self._memory.data[begin : begin + self._word(size)]), self._word(cas)

    def set_shared(self, key: str, value: str | bytes, cas: int) -> None:
        self._call("set_shared_data", key, value, cas)

    def register_queue(self, name: str) -> int:
        return self._number("register_shared_queue", name)

    def resolve_queue(self, vm: str, name: str) -> int:
        return self._number("resolve_shared_queue", vm, name)

    def enqueue(self, queue: int, value: str | bytes) -> None:
        self._call("enqueue_shared_queue", queue, value)

    def dequeue(self, queue: int) -> bytes | None:
        at, size = self._room(), self._room()
        if self._call("dequeue_shared_queue", queue, at, size, fine=[EMPTY]):
            return None
        begin = self._word(at)
        return bytes(self._memory.data[begin : begin + self._word(size)])

    def define_metric(self, type: int, name: str) -> int:
        return self._number("define_metric", type, name)

    def increment_metric(self, metric: int, offset: int) -> None:
        self._call("increment_metric", metric, offset)

    def record_metric(self, metric: int, value: int) -> None:
        self._call("record_metric", metric, value)

    def get_metric(self, metric: int) -> int:
        return self._number("get_metric", metric, form="<Q")

    def foreign(self, name: str, argument: str | bytes) -> bytes:
        return self._data("call_foreign_function", name, argument) or b""


def _pairs(pairs: Any) -> bytes:
    contents = [text.encode() if isinstance(text, str) else bytes(text) for pair in pairs for text in pair]
    head = struct.pack(f"<{1 + len(contents)}I", len(contents) // 2, *map(len, contents))
    return head + b"".join(content + b"\0" for content in contents)

"""One LuaJIT for the plugins of a thread: a sandbox with limits, whose coroutines wait for effects.

`sandbox.lua` removes everything that reaches outside (``io``, ``os.execute``, ``ffi``, ``debug``, bytecode, Python).
Memory and a handler's processor time are limited. Because a function in C cannot be stopped, Lua patterns that may take
long are matched in Lua (`patterns.lua`).

lupa ties a Lua value that Python gets or makes while a coroutine runs to this coroutine, which may be freed first. So
Python keeps no such value, and no exception whose traceback holds one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import proxy

from proxywasm_host import remedy
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.kong.context import Context, Entity, Headers, Log
from proxywasm_host.kong.lua.functions import FAILED, Functions
from proxywasm_host.kong.lua.modules import Modules
from proxywasm_host.kong.lua.shared_dictionaries import SharedDictionaries
from proxywasm_host.kong.lua.values import LuaValue, Values
from proxywasm_host.kong.lua.waits import WAITS
from proxywasm_host.kong.plugin import Effect, PluginFailed, StartTimer

try:
    from lupa import luajit21 as lupa
except ModuleNotFoundError as error:
    raise remedy.missing("lua", error) from None

__all__ = ["NEVER_WAIT", "Runtime", "Settings"]

SANDBOX = (Path(__file__).parent / "sandbox.lua").read_text()
PATTERNS = (Path(__file__).parent / "patterns.lua").read_text()

OUT_OF_MEMORY = "not enough memory"
"""LuaJIT's message for an allocation beyond the limit."""
NEVER_WAIT = frozenset({"header_filter", "body_filter"})
"""Phases that may not yield effects; timers that they start wait for another phase."""
PENDING_HEADERS = "response headers"
"""The key in `Context.state` of headers that plugins set before the response arrives."""


@dataclass(frozen=True)
class Settings:
    """The settings of a thread's plugins."""

    folders: Sequence[Path] = ()
    """Folders of plugins (``kong/plugins/NAME`` or ``NAME`` in them) and of modules that they `require`."""
    memory: int | None = 256 << 20
    """Most bytes of memory for all plugins together. Kong has no limit."""
    handler_time: float | None = 1.0
    """Processor time in seconds that one phase of one plugin may use; waiting is not counted. With a limit, Lua is
    interpreted, because compiled code cannot be stopped; without one, LuaJIT compiles."""
    writable: Sequence[Path] = ()
    """Files, or folders of files, that plugins may append to; Kong's plugin ``file-log`` needs it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The variables for ``os.getenv``."""
    shared: SharedDictionaries = field(default_factory=SharedDictionaries)
    """``ngx.shared``; threads that share it need the same object."""
    log: Log | None = None
    """Gets the lines that belong to no request: those of ``init_worker`` and timers."""


@dataclass(slots=True)
class Call:
    """One run of a phase or a timer."""

    phase: str
    plugin: str
    context: Context | None
    state: LuaValue
    timers: list[StartTimer] = field(default_factory=list)
    connections: dict[int, object] = field(default_factory=dict)
    """Open connections, by their numbers in Lua."""


def _no_attributes(_object: object, name: object, _setting: object) -> None:
    raise AttributeError(f"no access to {name!r} of Python")


class Runtime:
    """A LuaJIT with our library and the modules of the plugins' folders. It is used in one thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.spent = False
        """Whether memory has run out. The state may be broken then, so new requests need another runtime."""
        self.entities: Mapping[str, Sequence[Entity]] = {}
        """Entities of the latest configuration."""
        self._waiting_timers: list[StartTimer] = []
        self._lua = lua = lupa.LuaRuntime(
            encoding="latin-1",
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_no_attributes,
            max_memory=settings.memory,
        )
        self.table = lua.table_from
        self.modules = Modules(settings.folders)
        if settings.handler_time is not None:
            lua.execute(PATTERNS)
        functions = Functions(proxy(self), self.modules, settings.shared, settings.environment).by_name()
        inside = lua.execute(SANDBOX, lua.table_from(functions), FAILED, time.thread_time, settings.handler_time)
        self._start, self._require = inside["start"], inside["require"]
        self._run_timer = inside["run_timer"]
        self._new_state, self._shared_of, self._share = inside["new_state"], inside["shared"], inside["share"]
        self.member, self.null = inside["member"], inside["null"]
        self.values = Values(lua.table_from, lupa.lua_type, self.null)
        self.call = Call("init_worker", "", None, None)
        """The call that runs, or that ran last."""
        self.require("kong.globals")

    @staticmethod
    def lua_type(value: LuaValue) -> str | None:
        """The Lua type of a value that Python cannot represent; ``None`` for other values."""
        kind: str | None = lupa.lua_type(value)
        return kind

    @property
    def memory(self) -> int:
        """Bytes in use."""
        used: int = self._lua.get_memory_used()
        return used

    # -- Modules -------------------------------------------------------------------------------------------------------

    def require(self, name: str) -> LuaValue:
        """Load a module. Raises: PluginFailed, with Lua's message and traceback."""
        return self.run_now(self._require, name)

    # -- Running -------------------------------------------------------------------------------------------------------

    def run(
        self, function: LuaValue, *arguments: Any, phase: str, plugin: str = "", context: Context | None = None
    ) -> Generator[Effect, Any, Any]:
        """Run a function of Lua. Returns its first result; ``None`` after ``kong.response.exit``.

        Raises: PluginFailed, with the traceback.
        """
        call = Call(phase, plugin, context, self._state(context))
        if context is not None:
            self.entities = context.entities
        go_on = None
        try:
            while True:
                go_on, what, *values = self._go_on(call, function, go_on, arguments)
                if call.timers or self._waiting_timers:
                    self._waiting_timers += call.timers
                    call.timers = []
                    if phase not in NEVER_WAIT:
                        timers, self._waiting_timers = self._waiting_timers, []
                        yield from timers
                if what == "done":
                    return values[0] if values else None
                if what == "error":
                    self.spent = self.spent or OUT_OF_MEMORY in values[0]
                    raise PluginFailed(values[1] or values[0])
                name, *given = values
                if name == "exit":
                    return None
                if phase in NEVER_WAIT:
                    raise PluginFailed(f"API disabled in the context of {phase}: it may not wait ({name})")
                arguments = yield from WAITS[name](call.connections, self.table, *given)
        finally:
            # The embedder closes connections that were left open.
            call.connections.clear()

    def run_now(self, function: LuaValue, *arguments: Any) -> Any:
        """Run a function that does not wait, outside of requests. Raises: PluginFailed."""
        run = self.run(function, *arguments, phase="init_worker")
        try:
            effect = next(run)
            while isinstance(effect, StartTimer):
                self._waiting_timers.append(effect)
                effect = run.send(None)
        except StopIteration as end:
            return end.value
        raise PluginFailed(f"code outside of requests must not wait, but it waits for {effect}")

    def _go_on(self, call: Call, function: LuaValue, go_on: LuaValue, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Call a function, or resume its coroutine. Returns what resumes it next, the outcome, and its values."""
        previous, self.call = self.call, call
        context, state = call.context, call.state
        try:
            if context is not None and context.shared:
                self._take_in(context, state)
            if go_on is None:
                go_on, shares, *outcome = self._start(function, state, call.phase, call.plugin, *arguments)
            else:
                shares, *outcome = go_on(state, call.phase, call.plugin, *arguments)
            if context is not None and (shares or (self, "shared") in context.state):
                self._give_out(context, state)
        except lupa.LuaMemoryError:
            self.spent = True
            raise PluginFailed(f"Lua plugins have used up their {self.settings.memory} bytes of memory") from None
        except lupa.LuaError as error:
            raise PluginFailed(str(error)) from None
        finally:
            self.call = previous
        return go_on, *outcome

    # -- Requests ------------------------------------------------------------------------------------------------------

    def _state(self, context: Context | None) -> LuaValue:
        if context is None:
            return self._new_state()
        state = context.state.get(self)
        if state is None:
            state = context.state[self] = self._new_state()
        return state

    def _take_in(self, context: Context, state: LuaValue) -> None:
        """Copy entries of ``kong.ctx.shared`` that others have set into Lua."""
        exported = context.state.setdefault((self, "shared"), {})
        for key, value in context.shared.items():
            if key not in exported or exported[key] != value:
                exported[key] = value
                self._share(state, self.values.to_lua(key), self.values.to_lua(value))

    def _give_out(self, context: Context, state: LuaValue) -> None:
        """Copy Lua's entries of ``kong.ctx.shared`` to the context; functions and the like stay in Lua."""
        shared = self._shared_of(state)
        found: dict[str, Any] = {}
        for key, value in shared.items() if shared is not None else ():
            with suppress(ValueError):
                found[str(self.values.to_python(key))] = self.values.to_python(value)
        for key in context.state.get((self, "shared"), {}).keys() - found.keys():
            context.shared.pop(key, None)
        context.shared.update(found)
        context.state[self, "shared"] = found

    @staticmethod
    def pending_headers(context: Context) -> Headers:
        """The headers that plugins set before the response arrives."""
        headers = context.state.get(PENDING_HEADERS)
        if headers is None:
            headers = context.state[PENDING_HEADERS] = Headers([])
        found: Headers = headers
        return found

    # -- Called by Lua -------------------------------------------------------------------------------------------------

    def start_timer(self, seconds: float, number: int) -> None:
        """Run a timer of Lua after `seconds`."""
        run = self.run(self._run_timer, number, phase="timer", plugin=self.call.plugin)
        self.call.timers.append(StartTimer(seconds, run))

    def log(self, level: LogLevel, message: str) -> None:
        """Log a line of the current call."""
        log = self.call.context.log if self.call.context else self.settings.log
        if log is not None:
            log(level, message)

    def append_to_file(self, path: Path, data: bytes) -> bool:
        """Append to a file, if that is allowed. Returns whether it did."""
        try:
            real = path.resolve()
            allowed = [folder.resolve() for folder in self.settings.writable]
            if not any(real == each or real.is_relative_to(each) for each in allowed):
                return False
            fd = os.open(real, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)
        except OSError:
            return False
        return True

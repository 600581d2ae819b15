"""Lua plugins in folders: ``handler.lua``, ``schema.lua``, and ``daos.lua`` if they define entities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.context import Context
from proxywasm_host.kong.lua.runtime import NEVER_WAIT, Runtime, Settings
from proxywasm_host.kong.lua.values import LuaValue, bytes_as_text
from proxywasm_host.kong.plugin import PHASES, PluginFailed, Run

__all__ = ["LuaPlugin", "LuaPlugins"]


class LuaPlugins:
    """The Lua plugins of one thread. They share a runtime, which is replaced when its memory has run out."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings = settings or Settings()
        self._runtime = Runtime(settings)

    @property
    def runtime(self) -> Runtime:
        """The runtime for new runs."""
        if self._runtime.spent:
            self._runtime = Runtime(self.settings)
        return self._runtime

    def load(self, name: str) -> LuaPlugin:
        """Load a plugin. Raises: ConfigError, if it does not exist or its code fails, with Lua's message."""
        if not self.runtime.modules.has(f"kong.plugins.{name}.handler"):
            folders = ", ".join(str(folder) for folder in self.settings.folders) or "no folder was named"
            raise ConfigError(
                f"no Lua plugin {name!r}: there is no kong/plugins/{name}/handler.lua and no {name}/handler.lua "
                f"in: {folders}"
            )
        try:
            return LuaPlugin(self, name)
        except PluginFailed as failure:
            raise ConfigError(f"the Lua plugin {name!r} cannot be loaded: {failure}") from None


class LuaConfig(dict[str, Any]):
    """A checked configuration. In Lua it is always the same table, because plugins use it as a key."""

    def __init__(self, values: Mapping[str, Any], runtime: Runtime, table: LuaValue) -> None:
        super().__init__(values)
        self._made = runtime, table

    def table(self, runtime: Runtime) -> LuaValue:
        """The table of the configuration in a runtime."""
        if self._made[0] is not runtime:
            self._made = runtime, runtime.values.to_lua(self, nulls=False)
        return self._made[1]


class LuaPlugin:
    """One plugin, a `proxywasm_host.kong.plugin.Plugin`."""

    def __init__(self, plugins: LuaPlugins, name: str) -> None:
        self._plugins = plugins
        self._name = name
        self._runtime: Runtime | None = None
        self._started: Runtime | None = None
        self._handler: LuaValue = None
        self._functions: dict[str, LuaValue] = {}
        self._schema: LuaValue = None
        runtime = self._load()
        priority = runtime.member(self._handler, "PRIORITY")
        self._priority = int(priority) if isinstance(priority, (int, float)) else 0
        version = runtime.member(self._handler, "VERSION")
        self._version = bytes_as_text(version) if isinstance(version, str) else "0"
        # In ``header_filter``, headers that were set before the response arrived are added to it.
        self._phases = frozenset({"header_filter", *self._functions})

    def __repr__(self) -> str:
        return f"<LuaPlugin {self.name} {self.version}, priority {self.priority}>"

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def priority(self) -> int:
        """Its ``PRIORITY``."""
        return self._priority

    @property
    def version(self) -> str:
        """Its ``VERSION``."""
        return self._version

    @property
    def phases(self) -> frozenset[str]:
        """The phases of its handler, and ``header_filter``, which adds headers that were set earlier."""
        return self._phases

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with its defaults. Raises: ConfigError, with Kong's messages by field."""
        runtime = self._load()
        try:
            check = runtime.member(runtime.require("kong.db.schema"), "check_plugin")
            checked = runtime.run_now(check, self._schema, runtime.values.to_lua(config))
        except PluginFailed as failure:
            raise ConfigError(f"the schema of {self.name!r} failed: {failure}") from None
        if isinstance(checked, str):
            raise ConfigError(bytes_as_text(checked))
        values = runtime.values.to_python(checked)
        return LuaConfig(values, runtime, checked)

    def run(self, phase: str, context: Context | None, config: Any) -> Run:
        """Run one phase. Raises (from the generator): PluginFailed."""
        runtime = self._load()
        if phase != "init_worker" and phase not in NEVER_WAIT and self._started not in {None, runtime}:
            # The runtime has been replaced.
            yield from self._call(runtime, "init_worker", None, None)
        if phase == "header_filter" and context is not None and context.response is not None:
            pending = runtime.pending_headers(context)
            context.response.headers.pairs[:0] = pending.pairs
            pending.pairs.clear()
        yield from self._call(runtime, phase, context, config)

    def _call(self, runtime: Runtime, phase: str, context: Context | None, config: Any) -> Run:
        if phase == "init_worker":
            self._started = runtime
        function = self._functions.get(phase)
        if function is not None:
            argument = _table(runtime, config)
            yield from runtime.run(function, self._handler, argument, phase=phase, plugin=self.name, context=context)

    def _load(self) -> Runtime:
        """The current runtime, after loading this plugin into it."""
        runtime = self._plugins.runtime
        if self._runtime is not runtime:
            at = f"kong.plugins.{self.name}"
            self._handler = runtime.require(f"{at}.handler")
            if runtime.lua_type(self._handler) != "table":
                raise PluginFailed("handler.lua returns no table")
            if not runtime.modules.has(f"{at}.schema"):
                raise PluginFailed("there is no schema.lua")
            self._schema = runtime.require(f"{at}.schema")
            if runtime.modules.has(f"{at}.daos"):
                runtime.run_now(
                    runtime.member(runtime.require("kong.pdk.db"), "declare"), runtime.require(f"{at}.daos")
                )
            members = {phase: runtime.member(self._handler, phase) for phase in PHASES}
            self._functions = {
                phase: member for phase, member in members.items() if runtime.lua_type(member) == "function"
            }
            self._runtime = runtime
        return runtime


def _table(runtime: Runtime, config: Any) -> LuaValue:
    if isinstance(config, LuaConfig):
        return config.table(runtime)
    if config is None:
        return None
    if isinstance(config, Mapping):
        return runtime.values.to_lua(config, nulls=False)
    return runtime.table([_table(runtime, each) for each in config])

"""A configuration of Kong with its plugins and filters: read once, used by the host of each thread."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxywasm_host import remedy
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.driver.filters import Filter
from proxywasm_host.errors import ConfigError, not_among
from proxywasm_host.kong.config import Configuration, read
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.filters import FilterFolder
from proxywasm_host.kong.gateway import Gateway
from proxywasm_host.kong.plugin import Plugin
from proxywasm_host.kong.router import Address, is_served, may_match, stream_routes
from proxywasm_host.kong.servers.plugin import ServerPlugin
from proxywasm_host.kong.servers.process import PluginServer
from proxywasm_host.runtime import plugin as wasm
from proxywasm_host.runtime.host import Host
from proxywasm_host.services.log import LEVELS

if TYPE_CHECKING:
    from proxywasm_host.kong.lua import LuaPlugins

logger = logging.getLogger("proxywasm_host.kong")
__all__ = ["Setup", "query"]


OF_STREAMS = frozenset({"preread"})
NO_PHASE = "the plugin has only phases of connections: give it protocols with tcp"


def log(level: LogLevel, message: str) -> None:
    """Log a line of a plugin that belongs to no request."""
    logger.log(LEVELS[level], "%s", message)


def query(environment: Environment) -> list[PluginServer]:
    """Query the plugin servers of an environment for their plugins. Takes seconds. Raises: ConfigError."""
    return [PluginServer(settings) for settings in environment.servers]


class Setup:
    """A file's configuration, with its filters and plugins. Raises: ConfigError, with the place of each error."""

    def __init__(self, file: Path, environment: Environment, servers: Sequence[PluginServer]) -> None:
        self.environment = environment
        self._dictionaries: Any = None
        """``ngx.shared``, for all threads."""
        self.servers = {server.name: server for server in servers}
        self.configuration: Configuration = read(file)
        folder = FilterFolder(environment.filters_path, environment.wasm_filters, environment.isolation)
        self.filters: list[Filter] = []
        """All filters of all chains."""
        self._places: dict[str, range] = {}
        wrong: list[str] = []
        for owner, chain in self.configuration.chains.items():
            begin = len(self.filters)
            for use in chain:
                try:
                    self.filters.append(folder.filter(use))
                except ConfigError as error:  # noqa: PERF203 - all errors are reported
                    wrong.append(str(error))
            self._places[owner] = range(begin, len(self.filters))
        self.listeners = [(address, self._service(address, wrong)) for address in environment.stream_listen]
        """Listeners for connections, each with the id of its service (``None`` without one)."""
        plugins = self._plugins(wrong)
        for placed in self.configuration.plugins:
            if placed.name in plugins:
                try:
                    plugins[placed.name].check(placed.config)
                except ConfigError as error:
                    wrong += [f"{placed.where}: {line}" for line in str(error).splitlines()]
        if wrong:
            raise ConfigError("\n".join(wrong))

    def _service(self, listener: Address, wrong: list[str]) -> str | None:
        """The service of a listener: the data plane carries all of its connections to the same one."""
        services = {service["id"]: service for service in self.configuration.of("services")}
        routes = [
            route
            for route in stream_routes(self.configuration.of("routes"))
            if may_match(route, listener) and is_served(route, services)
        ]
        found = [route["service"]["id"] for route in routes if route["service"] is not None]
        for route, id in zip((route for route in routes if route["service"]), found, strict=True):
            if id != found[0]:
                where = self.configuration.places[route["id"]]
                said = "is not supported: all routes of a listener must have one service, but earlier ones of"
                wrong.append(f"{where}: {said} {listener[0]}:{listener[1]} have another")
        return found[0] if found else None

    def __getstate__(self) -> dict[str, Any]:
        """State for another of our processes, which has a separate ``ngx.shared``."""
        return {**vars(self), "_dictionaries": None}

    def _plugins(self, wrong: list[str]) -> dict[str, Plugin]:
        """The plugins that the configuration names, loaded for one thread."""
        known = {plugin["Name"]: (server.name, plugin) for server in self.servers.values() for plugin in server.plugins}
        plugins: dict[str, Plugin] = {}
        lua = self._lua()
        for use in self.configuration.plugins:
            if use.name in plugins:
                continue
            if use.name in known:
                plugins[use.name] = ServerPlugin(*known[use.name])
                if plugins[use.name].phases <= OF_STREAMS and "tcp" not in use.protocols:
                    wrong.append(f"{use.where.removesuffix('.config')}: is not supported: {NO_PHASE}")
                continue
            try:
                if lua is None:
                    raise ConfigError(not_among("plugin", use.name, known))  # noqa: TRY301 - handled like Lua's
                plugins[use.name] = lua.load(use.name)
            except ConfigError as error:
                wrong.append(f"{use.where.removesuffix('.config')}: {error}")
        return plugins

    def _lua(self) -> LuaPlugins | None:
        """The Lua plugins for one thread; ``None`` without folders. Raises: ConfigError, without the extra ``lua``."""
        if not self.environment.lua_folders:
            return None
        try:
            from proxywasm_host.kong.lua import LuaPlugins, Settings, SharedDictionaries  # noqa: PLC0415 - of an extra
        except ModuleNotFoundError as error:
            raise ConfigError(f"KONG_LUA_PACKAGE_PATH: {remedy.missing('lua', error)}") from None
        if self._dictionaries is None:
            self._dictionaries = SharedDictionaries()
        environment = self.environment
        settings = Settings(
            folders=environment.lua_folders,
            memory=environment.lua_memory,
            handler_time=environment.lua_handler_time,
            writable=environment.lua_writable,
            environment=environment.lua_environment,
            shared=self._dictionaries,
            log=log,
        )
        return LuaPlugins(settings)

    @property
    def files(self) -> list[Path]:
        """The files that a running gateway depends on in addition to modules: plugins in Lua, schemas of filters."""
        names = {use.name for use in self.configuration.plugins}
        folders = [
            folder / inside / name
            for folder in self.environment.lua_folders
            for inside in ("kong/plugins", ".")
            for name in sorted(names)
        ]
        found = [file for folder in folders for file in sorted(folder.rglob("*.lua"))]
        schemas = [Path(str(filter.code)).with_suffix(".meta.json") for filter in self.filters]
        return [*found, *dict.fromkeys(schemas)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the plugin servers while this context is open."""
        try:
            for server in self.servers.values():
                server.start()
            yield
        finally:
            for server in self.servers.values():
                server.stop()

    def gateway(self, host: Host, running: Sequence[wasm.Plugin]) -> Gateway:
        """The gateway of one host; `running` are its plugins for `filters`. Raises: ConfigError."""
        wrong: list[str] = []
        plugins = self._plugins(wrong)
        if wrong:
            raise ConfigError("\n".join(wrong))
        return Gateway(
            host,
            self.configuration,
            plugins,
            {owner: [running[place] for place in places] for owner, places in self._places.items()},
            servers=self.servers,
            trusted=self.environment.trusted_ips,
            real_ip_header=self.environment.real_ip_header,
        )

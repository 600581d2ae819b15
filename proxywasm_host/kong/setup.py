"""A configuration of Kong with all that it names, ready for hosts: read once, used in each thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxywasm_host.driver.filters import Filter
from proxywasm_host.errors import ConfigError, not_among
from proxywasm_host.kong.config import Configuration, read
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.filters import FilterFolder
from proxywasm_host.kong.gateway import Gateway
from proxywasm_host.kong.plugin import Plugin
from proxywasm_host.kong.servers.plugin import ServerPlugin
from proxywasm_host.kong.servers.process import PluginServer
from proxywasm_host.runtime import plugin as wasm
from proxywasm_host.runtime.host import Host

__all__ = ["Setup", "query"]


def query(environment: Environment) -> list[PluginServer]:
    """Ask the plugin servers of an environment which plugins they have. Takes seconds. Raises: ConfigError."""
    return [PluginServer(settings) for settings in environment.servers]


class Setup:
    """What a file says, with its filters and its plugins found. Raises: ConfigError, with each place."""

    def __init__(self, file: Path, environment: Environment, servers: Sequence[PluginServer]) -> None:
        self.environment = environment
        self.servers = {server.name: server for server in servers}
        self.configuration: Configuration = read(file)
        folder = FilterFolder(environment.filters_path)
        self.filters: list[Filter] = []
        """All filters of all chains."""
        self._places: dict[str, range] = {}
        wrong: list[str] = []
        for owner, chain in self.configuration.chains.items():
            begin = len(self.filters)
            for use in chain:
                try:
                    self.filters.append(folder.filter(use))
                except ConfigError as error:  # noqa: PERF203 - all of them are told
                    wrong.append(str(error))
            self._places[owner] = range(begin, len(self.filters))
        plugins = self._plugins(wrong)
        for placed in self.configuration.plugins:
            if placed.name in plugins:
                try:
                    plugins[placed.name].check(placed.config)
                except ConfigError as error:
                    wrong += [f"{placed.where}: {line}" for line in str(error).splitlines()]
        if wrong:
            raise ConfigError("\n".join(wrong))

    def _plugins(self, wrong: list[str]) -> dict[str, Plugin]:
        """The plugins that the configuration names, loaded for one thread."""
        known = {plugin["Name"]: (server.name, plugin) for server in self.servers.values() for plugin in server.plugins}
        plugins: dict[str, Plugin] = {}
        for use in self.configuration.plugins:
            if use.name not in plugins and use.name in known:
                plugins[use.name] = ServerPlugin(*known[use.name])
            elif use.name not in plugins:
                said = not_among("plugin", use.name, known)
                wrong.append(f"{use.where.removesuffix('.config')}: {said}")
        return plugins

    def gateway(self, host: Host, running: Sequence[wasm.Plugin]) -> Gateway:
        """The gateway of one host, whose `running` filters are those of `filters`. Raises: ConfigError."""
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

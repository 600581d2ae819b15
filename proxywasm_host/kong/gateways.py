"""The common part of the middlewares: one configuration, and a gateway for each running chain of filters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from proxywasm_host.abi.profile import WASMX
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.dispatch import Dispatcher
from proxywasm_host.driver.filters import Filter
from proxywasm_host.kong import client  # noqa: F401 - it performs plugins' effects
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.gateway import Gateway
from proxywasm_host.kong.setup import Setup, query
from proxywasm_host.kong.stream import KongStream
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.serve.config import Calls, ShmKv
from proxywasm_host.serve.filters import cluster_of
from proxywasm_host.services import Services
from proxywasm_host.services.shared import open_shared, with_shared

__all__ = ["Gateways"]


class Gateways:
    """Reads a configuration, and queries the plugin servers of the environment. Takes seconds. Raises: ConfigError."""

    def __init__(self, config: str | Path, environment: Mapping[str, str] | None) -> None:
        """`environment` has Kong's variables (``KONG_…``); those of the process if not given."""
        self._environment = Environment.read(os.environ if environment is None else environment)
        self._servers = query(self._environment)
        self._setup = Setup(Path(config), self._environment, self._servers)
        self._made: WeakKeyDictionary[Dispatcher, tuple[Sequence[Plugin], Gateway]] = WeakKeyDictionary()

    @property
    def filters(self) -> list[Filter]:
        """The filters of all chains, for the middleware to load."""
        return self._setup.filters

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """The options of a middleware, completed by those of the configuration."""
        any_host = cluster_of("http://any.host", Calls.model_validate(self._environment.calls))
        options = {"clusters": Clusters({}, any_host=any_host), **given, "profile": WASMX}
        zones = ShmKv.zones(self._environment.shm_kv)
        if zones:
            services, shared = options.get("services") or Services(), options.pop("shared", None)
            options["services"] = (
                replace(services, shared_data=zones.in_memory())
                if shared is None
                else with_shared(services, open_shared(shared, zones))
            )
        return options

    def stream(
        self,
        driver: Dispatcher,
        plugins: Sequence[Plugin],
        properties: Mapping[str, PropertyValue],
        buffer_limit: int,
        header_limits: HeaderLimits | None,
    ) -> KongStream:
        """A stream for one request, for a driver that runs these filters."""
        running, gateway = self._made.get(driver, (None, None))
        if gateway is None or running is not plugins:
            gateway = self._setup.gateway(driver.host, plugins)
            self._made[driver] = plugins, gateway
            gateway.start()
            driver.perform(driver.host.drain())
        return KongStream(gateway, properties=properties, buffer_limit=buffer_limit, header_limits=header_limits)

    def start(self) -> None:
        """Start the plugin servers."""
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        """End the plugin servers."""
        for server in self._servers:
            server.stop()

"""``proxywasm serve`` for a configuration of Kong: the data plane carries requests, and `KongStream` routes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PrivateAttr, ValidationError

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.dispatch import Sink
from proxywasm_host.errors import ConfigError
from proxywasm_host.integrations.asgi.scope import Scope
from proxywasm_host.kong import client  # noqa: F401 - it performs plugins' effects
from proxywasm_host.kong.connection import KongConnection
from proxywasm_host.kong.context import Entity
from proxywasm_host.kong.driver import KongDriver
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.servers.process import PluginServer
from proxywasm_host.kong.setup import Setup, query
from proxywasm_host.kong.stream import ROUTING_HEADER, KongStream
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.tcp import TcpStream
from proxywasm_host.serve import config
from proxywasm_host.serve.application import Application
from proxywasm_host.serve.driver import ThreadDriver
from proxywasm_host.serve.filters import as_written
from proxywasm_host.serve.generation import Generation
from proxywasm_host.serve.source import Source, error_lines, read_file
from proxywasm_host.serve.upstreams import OutlierDetection, Retry, Server, Upstream, UpstreamTls

__all__ = ["KongApplication", "KongSource"]

BEFORE = 1 << 31
"""Hops of X-Forwarded-For that the data plane trusts: all, because the gateway checks them."""
MAX_WEIGHT = 1000
KONGS = ("filters", "profile", "upstream", "upstreams", "routes", "tcp")
"""Settings that a configuration which names one of Kong must not have."""


class KongRoute(config.Route):
    """The one route of the data plane: the header that `KongStream` sets names the upstream."""

    cluster_header: str | None = ROUTING_HEADER.decode()
    remove_cluster_header: bool = True


class KongSettings(config.Settings):
    """The settings of ``serve`` that a configuration of Kong stands for."""

    least: ClassVar[str] = "_format_version"

    _setup: Setup = PrivateAttr()

    @property
    def setup(self) -> Setup:
        """The configuration of Kong."""
        return self._setup

    @property
    def more_files(self) -> list[Path]:
        """Plugins in Lua, schemas of filters, and the configuration of Kong if another one names it."""
        return [*self.setup.files, *([self.kong] if self.kong else [])]

    @property
    def chain_numbers(self) -> list[int | None]:
        """The same chain for all: every request and every connection passes the gateway."""
        return [0] * (1 + len(self.routes) + len(self.tcp))

    @property
    def any_upstream(self) -> Upstream | None:
        """The options for other targets, which plugins and filters may set."""
        return Upstream(url="http://localhost", tls=UpstreamTls(verify=False))

    @property
    def behind(self) -> str:
        """The names of the services, for messages."""
        names = [str(service["name"] or service["host"]) for service in self.setup.configuration.of("services")]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


@dataclass(frozen=True)
class KongSource(Source[KongSettings]):
    """A declarative configuration that can be read again. Plugin servers are queried once."""

    environment: Environment = field(default_factory=Environment)
    servers: tuple[PluginServer, ...] = ()
    named: bool = False
    """Whether the file is one of ours, which names Kong's (``kong``) and has other settings of ``serve``."""

    @classmethod
    def of(cls, file: Path, overrides: Mapping[str, Any], *, named: bool = False) -> KongSource:
        """The configuration of a file, with the environment of this process. Raises: ConfigError."""
        environment = Environment.read(os.environ)
        return cls(file, overrides, KongSettings, "serve", environment, tuple(query(environment)), named)

    def load(self) -> KongSettings:
        """Read and check the configuration, with its plugins and filters. Raises: ConfigError."""
        assert self.file is not None  # noqa: S101 - `of` has one
        own: dict[str, Any] = {}
        lines: Mapping[Any, int] = {}
        base = Path.cwd()
        if self.named:
            own, lines = read_file(self.file, "the configuration", "a configuration is a mapping, with 'kong' in it")
            base = self.file.absolute().parent
        setup = Setup(base / str(own["kong"]) if self.named else self.file, self.environment, self.servers)
        for name in KONGS:
            if name in own or name in self.overrides:
                where = f"{self.file}:{lines[name,]}: {name}: " if name in own else ""
                raise ConfigError(f"{where}a configuration of Kong names its filters and upstreams: leave them out")
        said = {
            "profile": "wasmx",
            "filters": [as_written(filter) for filter in setup.filters],
            "shm_kv": self.environment.shm_kv,
            "upstreams": {**upstreams_of(setup), NO_SERVICE: Upstream(url="tcp://127.0.0.1:1")},
            "tcp": [
                {"listen": f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "upstream": service or NO_SERVICE}
                for (host, port), service in setup.listeners
            ],
            "routes": [KongRoute()],
            "allow_any_host": self.environment.calls,
            "forwarded": {"xff_num_trusted_hops": BEFORE, "generate_request_id": False},
        }
        try:
            settings = KongSettings.model_validate({**said, **own, **self.overrides}, context=base)
        except ValidationError as error:
            told = error_lines(error, self.file, lines, "proxywasm serve --schema", "the configuration")
            raise ConfigError("\n".join(told)) from None
        settings._setup = setup
        return settings


def upstreams_of(setup: Setup) -> dict[str, Upstream]:
    """An upstream of the data plane for each service, by its id, and for each of Kong's upstreams, by its URL."""
    configuration = setup.configuration
    named = {upstream["name"]: upstream for upstream in configuration.of("upstreams")}
    targets: dict[str, list[Entity]] = {}
    for target in configuration.of("targets"):
        targets.setdefault(target["upstream"]["id"], []).append(target)

    def servers(scheme: str, upstream: Entity) -> list[Server]:
        found = [target for target in targets.get(upstream["id"], ()) if target["weight"]]
        most = max((target["weight"] for target in found), default=1)
        return [
            Server(
                url=f"{scheme}://{target['target']}",
                weight=target["weight"] if most <= MAX_WEIGHT else max(1, target["weight"] * MAX_WEIGHT // most),
            )
            for target in found
        ]

    found: dict[str, Upstream] = {}
    for service in configuration.of("services"):
        scheme = {"https": "https", "grpcs": "https", "tcp": "tcp", "tls": "tls"}.get(service["protocol"], "http")
        upstream = named.get(service["host"])
        found[service["id"]] = Upstream(
            servers=[Server(url=f"{scheme}://{service['host']}:{service['port']}")]
            if upstream is None
            else servers(scheme, upstream) or [NOBODY],
            balance=balance_of(upstream),
            outlier_detection=None if upstream is None else outliers_of(upstream),
            protocol="http2" if service["protocol"].startswith("grpc") else "http1",
            retry=Retry(retry_on=["connect-failure", "refused-stream"], num_retries=min(service["retries"], 100))
            if service["retries"]
            else None,
            connect_timeout=service["connect_timeout"] / 1000,
            timeout=service["read_timeout"] / 1000,
            idle_timeout=max(service["read_timeout"], service["write_timeout"]) / 1000,
            tls=UpstreamTls(verify=bool(service["tls_verify"])),
        )
    for name, upstream in named.items():
        for scheme in ("http", "https"):
            found[f"{scheme}://{name}"] = Upstream(
                servers=servers(scheme, upstream) or [NOBODY],
                balance=balance_of(upstream),
                outlier_detection=outliers_of(upstream),
                timeout=60.0,
                tls=UpstreamTls(verify=False),
            )
    return found


NO_SERVICE = "no service"
"""The upstream of a listener without a service: its connections are closed before they need it."""
NOBODY = Server(url="http://127.0.0.1:1")
"""Replaces the targets of an upstream without any: no server listens there, so requests are answered 503 as in Kong,
and connections are closed."""


def balance_of(upstream: Entity | None) -> Any:
    """The way to spread requests over targets."""
    least = upstream is not None and upstream["algorithm"] == "least-connections"
    return "least_requests" if least else "round_robin"


def outliers_of(upstream: Entity) -> OutlierDetection | None:
    """The rule by which a failing target gets no requests for a while; ``None`` if there is none."""
    unhealthy = upstream["healthchecks"]["passive"]["unhealthy"]
    failures = [unhealthy[name] for name in ("http_failures", "tcp_failures", "timeouts") if unhealthy[name]]
    return OutlierDetection(consecutive_5xx=min(failures)) if failures else None


class KongGeneration(Generation):
    """A generation whose requests go through a gateway."""

    settings: KongSettings
    _driver_type: ClassVar[type[ThreadDriver]] = KongDriver
    makes_streams = True

    def _load(self) -> None:
        super()._load()
        self.chains = []  # the stream finds the route of its request
        self.gateway = self.settings.setup.gateway(self.host, self.plugins)
        try:
            self.gateway.start()
        finally:
            self.driver.perform(self.host.drain())

    def stream(self, chain: int, authority: bytes, path: bytes, properties: Mapping[str, PropertyValue]) -> HttpStream:
        return KongStream(self.gateway, properties=properties, buffer_limit=self.settings.buffer_limit, told=True)

    def connection(self, listener: int, scope: Scope, routed: Mapping[str, PropertyValue], sink: Sink) -> TcpStream:
        stream = KongConnection(
            self.gateway,
            *(scope[side] for side in ("client", "server")),
            properties=self.properties(scope, routed),
            buffer_limit=self.settings.buffer_limit,
        )
        self.driver.attach(stream, sink)
        return stream

    def _end(self) -> None:
        self.gateway.close()
        super()._end()


class KongApplication(Application):
    """Serves a configuration of Kong, and runs its plugin servers."""

    _generation_type = KongGeneration
    _source: KongSource  # type: ignore[assignment]

    async def start(self) -> None:
        """Start the plugin servers, and load everything. Raises: ProxyWasmError."""
        try:
            for server in self._own_servers:
                server.start()
            await super().start()
        except BaseException:
            self._end_servers()
            raise

    async def stop(self) -> None:
        """Free everything, and end the plugin servers."""
        try:
            await super().stop()
        finally:
            self._end_servers()

    @property
    def _own_servers(self) -> Sequence[PluginServer]:
        """The plugin servers, if this application runs them (for all others)."""
        return self._source.servers if self._first is None and self._listening is not None else ()

    def _end_servers(self) -> None:
        for server in self._own_servers:
            server.stop()

"""The models of the configuration file of ``proxywasm serve``.

The JSON schema of `Settings` is published as ``docs/serve.schema.json`` and printed by ``proxywasm serve --schema``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, SchemaError

from proxywasm_host import recording
from proxywasm_host.abi.profile import PROFILES
from proxywasm_host.abi.values import encode_value
from proxywasm_host.driver import recycle as recycling
from proxywasm_host.driver.defaults import DEADLINE, FAILURE_POLICY, MEMORY, RELOAD_INTERVAL, STREAM_IDLE_TIMEOUT
from proxywasm_host.driver.filters import DEFAULTS
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.errors import not_among
from proxywasm_host.fetch.fetcher import ModuleFetcher
from proxywasm_host.integrations.prometheus import SETS, Tag
from proxywasm_host.runtime import match as matches
from proxywasm_host.runtime.arguments import Check
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.filter_config import OPTIONS
from proxywasm_host.serve.model import File, Model, ModuleSource, Seconds, Size
from proxywasm_host.serve.upstreams import Retry, Tls, Upstream, web
from proxywasm_host.services import MAX_CALLOUTS, Zones
from proxywasm_host.services.shared import Shared, check_shared, open_shared
from proxywasm_host.services.zones import SMALLEST

__all__ = [
    "Address",
    "Calls",
    "Clients",
    "Cluster",
    "Filter",
    "HostSettings",
    "Record",
    "Recycle",
    "Route",
    "ServerTls",
    "Settings",
    "TcpListener",
]


def _address(value: Any) -> Any:
    """``HOST:PORT``, ``:PORT`` or ``[IPv6]:PORT``."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f":{value}"
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([^:\s]*)):(\d{1,5})", value) if isinstance(value, str) else None
    if not found or int(found[3]) > 65535:
        raise ValueError(f"{value!r} is not an address: write it as HOST:PORT, 127.0.0.1:8080 or [::1]:8080")
    return found[1] or found[2] or "127.0.0.1", int(found[3])


def _property(value: Any) -> Any:
    if not isinstance(value, (str, int, float, bool)):
        raise ValueError(f"{value!r} is not a value of a property: use text, a number, true or false")  # noqa: TRY004
    encode_value(value)
    return value


def _text(value: Any) -> Any:
    """A filter's configuration: text unchanged, anything else as JSON."""
    if isinstance(value, (str, bytes)):
        return value
    _check_json(value, ())
    return json.dumps(value, ensure_ascii=False)


def _check_json(value: Any, path: tuple[Any, ...]) -> None:
    """Check that JSON can hold a value. Raises: PydanticCustomError, with the path of a part that it cannot hold."""
    said = ""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                said = f"the key {key!r} is not text: put it in quotes"
                break
            _check_json(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _check_json(item, (*path, number))
    elif not (value is None or isinstance(value, (str, int)) or (isinstance(value, float) and isfinite(value))):
        said = f"{value!r} is not a value of JSON"
    if said:
        raise PydanticCustomError("no_json", "{said}", {"said": said, "path": path})


def _shared(value: str) -> str:
    check_shared(value)
    return value


Address = Annotated[tuple[str, int], BeforeValidator(_address), WithJsonSchema({"type": ["string", "integer"]})]
Text = Annotated[bytes, BeforeValidator(_text), WithJsonSchema({})]
Property = Annotated[
    Any, BeforeValidator(_property), WithJsonSchema({"type": ["string", "integer", "number", "boolean"]})
]


class Clients(Model):
    """Limits on clients."""

    max_headers: Annotated[int, Field(gt=0)] = 100
    """Most headers, and most trailers, of a request; with more, it is answered 431."""
    max_header_size: Size = 60 << 10
    """Most bytes of a request's head; with more, it is answered 431."""
    header_timeout: Seconds = 60.0
    """Seconds within which the head of a request must arrive; else 408."""
    keepalive: Seconds = 5.0
    """Seconds for which an idle connection is kept."""
    max_connections: Annotated[int, Field(gt=0)] = 4096
    """Most connections of one process, or of each of its `threads`; further ones are answered 503 and closed."""


class Calls(Model):
    """How filters call a server."""

    timeout: Seconds | None = None
    """Seconds for a whole call, unless the filter asks for less."""
    connect_timeout: Seconds = 5.0
    """Seconds to connect."""
    max_connections: Annotated[int, Field(gt=0)] = 1024
    """Most connections of one process, or of each of its `threads`; further calls wait up to `connect_timeout`."""
    max_callouts: Annotated[int, Field(gt=0)] = MAX_CALLOUTS
    """Most callouts of one filter at the same time; further ones are refused."""
    max_response: Size = 16 << 20
    """Most bytes of a response's body, of a gRPC message, or of a reply of Redis."""
    http2: bool = False
    """Offer HTTP/2 for HTTP callouts; gRPC always uses it."""
    authority: str | None = None
    """The :authority of gRPC calls, and the name that a certificate must have, instead of the URL's host."""
    keep_alive: Seconds | None = None
    """Seconds after which a silent gRPC connection is pinged, and within which it must answer."""
    redis_cluster: bool = False
    """Whether Redis runs in cluster mode; the URL names one of its nodes."""
    tls: Tls = Tls()


class Cluster(Calls):
    """A server that filters may call, by the name of this cluster."""

    short = "url"

    url: str
    """http[s]://HOST[:PORT] for HTTP and gRPC; redis[s]://[USER:PASSWORD@]HOST[:PORT][/DATABASE] for Redis."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        return value if value.startswith(("redis://", "rediss://")) else web(value)


class Recycle(Model):
    """When all filters get new VMs. Current requests end on the old VMs."""

    memory: Size | None = None
    """When a VM has this many bytes of memory."""
    requests: Annotated[int, Field(gt=0)] | None = None
    """When a VM has begun this many requests; a request counts once for each filter in the VM."""
    age: Seconds | None = None
    """When a VM has run for this many seconds."""

    @model_validator(mode="after")
    def _checked(self) -> Recycle:
        self.recycle()
        return self

    def recycle(self) -> recycling.Recycle:
        """The `Recycle` that this describes."""
        return recycling.Recycle(**self.model_dump())


class GuestLimits(Model):
    """Limits of a guest."""

    memory: Size = MEMORY
    """Bytes of memory, for example 256MiB."""
    deadline: Annotated[float, Field(ge=0, allow_inf_nan=False)] = DEADLINE
    """Seconds for a callback; 0 for no limit."""

    def limits(self) -> Limits:
        return Limits(self.memory, self.deadline or None)


def _names(value: list[str]) -> list[str]:
    matches.Match(value)
    return value


Names = Annotated[list[str], AfterValidator(_names)]


class Match(Model):
    """Selects the requests that fit all given conditions. A name may begin or end with ``*``, for any text."""

    hosts: Names = []
    """Hosts: ``:authority`` without its port."""
    paths: Names = []
    """Paths without their query."""
    routes: Names = []
    """Names of routes."""
    clusters: Names = []
    """Names of upstreams, as in the property ``xds.cluster_name``."""
    unless: list[Match] = []
    """Excludes requests that fit one of these."""

    def match(self) -> matches.Match:
        """The `Match` that this describes."""
        given = {name: getattr(self, name) for name in Match.model_fields if name != "unless"}
        return matches.Match(**given, unless=[each.match() for each in self.unless])


class Rule(Match):
    """A configuration that replaces the filter's own for some requests."""

    configuration: Text | None = None
    configuration_file: File | None = None
    disabled: bool = False
    """Whether these requests skip the filter."""

    @model_validator(mode="after")
    def _one_of_three(self) -> Rule:
        if (self.configuration is not None) + (self.configuration_file is not None) + self.disabled != 1:
            raise ValueError("give one of configuration, configuration_file and disabled: true")
        return self


def _checked(check: Check) -> AfterValidator:
    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)


FIELDS: dict[str, Any] = {
    name: (Annotated[option.kind, _checked(option.check)], Field(DEFAULTS[name], description=option.about))
    for name, option in OPTIONS.items()
    if option.plain
}
"""All options of a filter that need no other form in a file than in Python."""
_Options: Any = create_model("_Options", __base__=Model, **FIELDS)


class Filter(_Options):  # type: ignore[misc]  # its fields are known when it runs
    """One filter of the chain."""

    short = "file"

    file: ModuleSource
    """The module: a file, relative to the configuration file; a URL https://… or oci://registry/name:tag; or the
    module itself as data:application/wasm;base64,….
    """
    configuration: Text = b""
    """The filter's configuration: text unchanged, anything else as JSON."""
    configuration_file: File | None = None
    """A file with this configuration."""
    match: Match | None = None
    """Requests that pass the filter; all if not given."""
    rules: list[Rule] = []
    """Other configurations for some requests; the first rule that fits counts. A rule without hosts, paths, routes and
    clusters fits all.
    """
    vm_configuration: Text = b""
    """The configuration of its VM."""
    vm_configuration_file: File | None = None
    """A file with this configuration."""
    environment: dict[str, str] = Field({}, description=OPTIONS["environment"].about)
    capabilities: list[str] | None = Field(None, description=OPTIONS["capabilities"].about)
    failure_policy: FailurePolicy = Field(FAILURE_POLICY, description=OPTIONS["failure_policy"].about)
    reload_interval: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        RELOAD_INTERVAL, description=OPTIONS["reload_interval"].about
    )
    engine: str | None = Field(None, description=OPTIONS["engine"].about)
    limits: GuestLimits | None = Field(None, description=OPTIONS["limits"].about)

    @model_validator(mode="after")
    def _one_configuration(self) -> Filter:
        for name in ("configuration", "vm_configuration"):
            if getattr(self, name) and getattr(self, f"{name}_file"):
                raise ValueError(f"{name} and {name}_file are both given: one is enough")
        if self.match is not None and self.rules:
            raise ValueError("match and rules are both given: write the match into the rules")
        return self


def _host_pattern(value: str) -> str:
    if not re.fullmatch(r"\*|\*?[\w.-]+|\[[0-9a-fA-F:.]+\]", value):
        raise ValueError(f"{value!r} is not a host: write it as api.example.com, *.example.com or *, without a port")
    return value.lower()


def _regex(value: str) -> str:
    """Check a regular expression for the data plane, which uses the crate ``regex``. Raises: ValueError."""
    try:
        TypeAdapter(Annotated[str, StringConstraints(pattern=value)])
    except SchemaError as error:
        why = str(error).partition("\nerror: ")[2] or str(error)
        raise ValueError(f"{value!r} is not a regular expression: {why}") from None
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value):
        raise ValueError(f"{value!r} is not a name of a header")
    return value.lower()


PathStart = Annotated[str, StringConstraints(pattern="^/[!-~]*$")]
HeaderName = Annotated[str, AfterValidator(_header_name)]


class Redirect(Model):
    """Where the client is redirected; other parts stay as in its request. As with Envoy's options of the same names."""

    scheme: Literal["http", "https"] | None = None
    host: Annotated[str, StringConstraints(pattern="^[!-~]+$")] | None = None
    port: Annotated[int, Field(gt=0, le=65535)] | None = None
    path: PathStart | None = None
    """The whole path; a query in it replaces the query of the request."""
    prefix_rewrite: PathStart | None = None
    """Replaces the `prefix` or `path` of the route."""
    strip_query: bool = False
    status: Literal[301, 302, 303, 307, 308] = 301

    @model_validator(mode="after")
    def _somewhere_else(self) -> Redirect:
        if self.path is not None and self.prefix_rewrite is not None:
            raise ValueError("give either path or prefix_rewrite")
        return self


class DirectResponse(Model):
    """An answer without an upstream."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    body: str = ""


class Route(Model):
    """Where requests go, and through which filters. The first route that fits counts."""

    name: str | None = None
    """The property ``xds.route_name``."""
    virtual_host: str | None = None
    """The property ``xds.virtual_host_name``. A request to a host of a virtual host uses only its routes."""
    hosts: list[Annotated[str, AfterValidator(_host_pattern)]] = []
    """Hosts without port: ``api.example.com``, ``*.example.com``; any host if not given."""
    path: PathStart | None = None
    """The whole path, without its query."""
    prefix: PathStart | None = None
    """The beginning of the path."""
    regex: Annotated[str, AfterValidator(_regex)] | None = None
    """A regular expression for the whole path, without its query."""
    methods: list[Annotated[str, StringConstraints(pattern="^[!-~]+$")]] = []
    """HTTP methods; any method if not given."""
    headers: dict[HeaderName, str] = {}
    """Headers that the request must have, with these values."""
    upstream: str | None = None
    """Name of the upstream."""
    weighted: dict[str, Annotated[int, Field(ge=0, le=1_000_000)]] = {}
    """Names of several upstreams, and the share of the requests that each gets."""
    cluster_header: HeaderName | None = None
    """The header that names the upstream; 503 if it names none."""
    redirect: Redirect | None = None
    """Redirect the client, once the request has passed the filters."""
    direct_response: DirectResponse | None = None
    """Answer the client, once the request has passed the filters."""
    prefix_rewrite: PathStart | None = None
    """Replaces `prefix` or `path`; if the route has neither, it is put before the path."""
    host_rewrite: Annotated[str, StringConstraints(pattern="^[!-~]+$")] | None = None
    """Replaces Host; the client's value goes into X-Forwarded-Host."""
    timeout: Seconds | None = None
    """Overrides the upstream's timeout."""
    retry: Retry | None = None
    """Overrides the upstream's retries."""
    filters: list[Filter] = []
    """Filters that follow those of the whole configuration."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Route:
        targets = (self.upstream, self.cluster_header, self.redirect, self.direct_response, self.weighted or None)
        if sum(target is not None for target in targets) != 1:
            raise ValueError("give one of upstream, weighted, cluster_header, redirect and direct_response")
        if self.weighted and not any(self.weighted.values()):
            raise ValueError("weighted: at least one upstream must have a weight above 0")
        if sum(match is not None for match in (self.path, self.prefix, self.regex)) > 1:
            raise ValueError("give only one of path, prefix and regex")
        if self.regex is not None and self.prefix_rewrite is not None:
            raise ValueError("prefix_rewrite needs a path or prefix, not a regex")
        return self


class ServerTls(Model):
    """TLS towards clients."""

    certificate: File
    """PEM file of the certificate, with its chain."""
    key: File | None = None
    """PEM file of its key, if it is not in the same file."""
    client_ca: File | None = None
    """PEM file of authorities; clients then need a certificate of one of them."""


class TcpListener(Model):
    """Connections whose bytes are carried unchanged, whatever their protocol."""

    listen: Address
    """``HOST:PORT``; port 0 lets the system choose."""
    upstream: str
    """The name of one of `upstreams`, or the URL of a server: ``tcp://HOST:PORT``, or ``tls://HOST:PORT``."""
    filters: list[Filter] = []
    """Filters of these connections, in the order in which they get the client's data."""
    tls: ServerTls | None = None
    """TLS towards clients."""
    connect_attempts: Annotated[int, Field(gt=0, le=100)] = 1
    """Number of servers that are tried before the client's connection is closed."""
    idle_timeout: Seconds = 3600.0
    """Seconds without a byte from either side, after which the connection is closed."""

    @model_validator(mode="after")
    def _of_connections(self) -> TcpListener:
        for number, filter in enumerate(self.filters):
            for what in ("match", "rules"):
                if getattr(filter, what):
                    said = "selects HTTP requests: all connections of a listener pass all its filters"
                    raise _wrong(said, "filters", number, what)
        return self

    @property
    def url(self) -> str | None:
        """The URL of its server, if it names none of `upstreams`."""
        return self.upstream if "://" in self.upstream else None


class Forwarded(Model):
    """Headers that describe the client to upstream, as with Envoy's options of the same names."""

    use_remote_address: bool = True
    """Treat the connection's address as the client's: append it to X-Forwarded-For, and set X-Forwarded-Proto."""
    xff_num_trusted_hops: Annotated[int, Field(ge=0)] = 0
    """Number of proxies before us whose X-Forwarded-For and -Proto are trusted."""
    rfc7239: bool = False
    """Append an element to Forwarded as well (Envoy does not)."""
    generate_request_id: bool = True
    """Add X-Request-Id to a request without one."""


class AccessLog(Model):
    """The access log, with one line for each request."""

    format: Literal["common", "json", "off"] = "common"
    file: str = "-"
    """File to append to; ``-`` is standard output."""


class Record(Model):
    """The requests to record, for ``proxywasm replay``."""

    short = "directory"

    directory: File
    """Directory for recordings, one file of JSON each; it is created if needed."""
    sample: Annotated[int, Field(gt=0)] = 1
    """Record one out of this many requests."""
    failures_only: bool = False
    """Record only requests in which a guest failed, that were answered 500 or more, or that broke off."""
    max_bytes: Size = 1 << 20
    """Approximate size limit of one recording; the rest is left out."""
    max_files: Annotated[int, Field(gt=0)] = 100
    """Most recordings in the directory; the oldest are deleted."""
    redact: list[str] = []
    """Headers, and keys in filters' configurations, whose values are masked."""
    redact_credentials: bool = True
    """Mask everything that looks like a credential: authorization, cookie, Bearer …."""
    redact_bodies: bool = False
    """Replace each byte of bodies with ``x``."""

    def record(self) -> recording.Record:
        """The `Record` that this describes."""
        return recording.Record(**self.model_dump())


class MetricTag(Model):
    """Labels of metrics: those of a set, or one, as in Envoy's ``TagSpecifier``."""

    short = "set"

    set: str | None = None
    """The set: ``envoy``, ``istio``, ``kuadrant`` or ``higress``."""
    tag_name: str | None = None
    """Name of the label."""
    regex: str = ""
    """The first group is removed from the metric's name; the second, or else the first, is the value."""

    @model_validator(mode="after")
    def _checked(self) -> MetricTag:
        if (self.set is None) is not bool(self.tag_name and self.regex):
            raise ValueError("give either a set, or tag_name and regex")
        if self.set is not None and self.set not in SETS:
            raise ValueError(not_among("set of tags", self.set, SETS))
        _ = self.tags
        return self

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The `Tag`s that this describes."""
        return (Tag(self.tag_name or "", self.regex),) if self.set is None else tuple(SETS[self.set])


ZoneSize = Annotated[Size, Field(ge=SMALLEST)]


class ShmKv(Model):
    """A zone of shared data."""

    short = "size"

    size: ZoneSize
    """Bytes, including the overhead of entries."""
    eviction: Literal["slru", "lru", "none"] = "slru"
    """What a full zone drops: the least recently used entries, first those of similar size (``slru``) or any
    (``lru``), or nothing (``none``)."""

    @staticmethod
    def zones(given: Mapping[str, ShmKv], queues: Mapping[str, int] | None = None) -> Zones:
        """The `Zones` of these zones and sizes of queues, by name."""
        return Zones({name: (zone.size, zone.eviction) for name, zone in given.items()}, queues or {})


class Modules(Model):
    """How modules with a URL are fetched."""

    directory: File | None = None
    """Directory of the cache; the user's cache directory if not given."""
    ca: File | None = None
    """PEM file of authorities to trust in addition to the system's."""
    plain_http: list[str] = []
    """Hosts with ports that may be reached without TLS, like loopback addresses."""
    docker_config: File | None = None
    """Docker's config.json with credentials for registries; the user's own if not given."""
    timeout: Seconds = 60.0
    """Seconds for one fetch."""
    refresh_interval: Seconds | None = 60.0
    """Seconds between lookups of URLs whose pull_policy is Always; null for never."""

    def fetcher(self) -> ModuleFetcher:
        """The `ModuleFetcher` that this describes."""
        said = self.model_dump()
        directory = said.pop("directory")
        return ModuleFetcher(**said) if directory is None else ModuleFetcher(directory, **said)


class HostSettings(Model):
    """The settings of every server that runs filters."""

    least: ClassVar[str] = "filters"
    """The key that an error names if the file is not a mapping."""

    listen: Address = ("127.0.0.1", 0)
    """``HOST:PORT``; port 0 lets the system choose."""
    filters: list[Filter] = []
    """The chain of all requests, in the order in which requests pass it."""
    modules: Modules = Modules()
    engine: str | None = None
    """wasmtime, wasmer or v8; if not given, the preferred one of those installed."""
    profile: str = "envoy"
    limits: GuestLimits = GuestLimits()
    buffer_limit: Size = 1 << 20
    """Bytes of a body that filters may hold."""
    properties: dict[str, Property] = {}
    """Properties of all requests, by dotted name."""
    clusters: dict[str, Cluster] = {}
    """Servers that filters may call, by the name of the cluster."""
    allow_any_host: bool | Calls = False
    """Whether filters may also call ``host:port`` without a cluster, over TLS if a call's ``:scheme`` is ``https``. A
    mapping instead of true has the options of these calls, and lets filters omit the port."""
    tls: ServerTls | None = None
    log_level: Literal["trace", "debug", "info", "warn", "error", "critical"] = "info"
    """Lowest level of filters' log lines."""
    workers: Annotated[int, Field(gt=0, le=256)] = 1
    """Number of processes."""
    shared: Annotated[str, AfterValidator(_shared)] | None = None
    """Which processes share data, queues and metrics of filters: ``memory``, ``processes`` or ``redis://…``; the
    processes of this server if not given.
    """
    shm_kv: dict[str, ShmKv] = {}
    """Zones of shared data by name, as in ngx_wasm_module: a key ``cache/…`` is in the zone ``cache``, any other in
    ``*``. Processes share zones as ``shared`` says, which cannot be Redis. If not given, shared data has no zones."""
    shm_queue: dict[str, ZoneSize] = {}
    """Sizes of shared queues by name; if given, filters can use no other queues."""
    admin: Address | None = None
    """``HOST:PORT`` of ``/metrics`` and of the page; none if not given."""
    metric_tags: list[MetricTag] = []
    """Labels that are extracted from the names of filters' metrics: ``envoy``, ``istio``, ``kuadrant``, ``higress``, or
    regular expressions as in Envoy's ``stats_tags``.
    """
    admin_hosts: list[str] = []
    """Host names of the admin port in addition to localhost and addresses; others are answered 421."""
    record: Record | None = None
    """The requests to record; none if not given."""
    tracing: bool = False
    """Whether to make OpenTelemetry spans; environment variables configure its SDK."""
    watch: bool = False
    """Whether to load filters and configurations again when they change."""
    shutdown_timeout: Annotated[int, Field(gt=0)] = 30
    """Seconds within which requests must end at shutdown."""
    sample: Annotated[int, Field(gt=0)] = 64
    """Callbacks, hostcalls and time are counted for one of this many requests, at most five a second; 1 counts all."""

    @field_validator("profile")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PROFILES:
            raise ValueError(not_among("profile", value, PROFILES))
        return value

    @field_validator("properties", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """Turn nested mappings into dotted names."""
        return dict(_dotted(value)) if isinstance(value, dict) else value

    def open_shared(self, choice: str) -> Shared:
        """Open the services that filters share; `choice` says between which processes. Raises: ValueError."""
        return open_shared(choice, ShmKv.zones(self.shm_kv, self.shm_queue))

    @property
    def tags(self) -> list[Tag]:
        """Labels of filters' metrics."""
        return [tag for given in self.metric_tags for tag in given.tags]

    @property
    def all_filters(self) -> list[Filter]:
        """All filters."""
        return self.filters

    @property
    def server_tls(self) -> list[ServerTls]:
        """TLS of each listener that has it."""
        return [] if self.tls is None else [self.tls]

    @property
    def all_upstreams(self) -> dict[str, Upstream]:
        """The upstreams, by name."""
        return {}

    @property
    def more_files(self) -> list[Path]:
        """Files of the configuration that it does not name."""
        return []

    @property
    def behind(self) -> str:
        """The URLs of the upstreams, for messages."""
        return ", ".join(upstream.urls for upstream in self.all_upstreams.values())


class Settings(HostSettings):
    """The configuration of ``proxywasm serve``."""

    least: ClassVar[str] = "upstream"

    upstream: Upstream | None = None
    """The server behind the filters, for all requests."""
    upstreams: dict[str, Upstream] = {}
    """Servers by name, for `routes`."""
    routes: list[Route] = []
    """Where requests go, instead of `upstream`. A request that fits none of them is answered 404."""
    tcp: list[TcpListener] = []
    """Listeners for other protocols than HTTP. Without `upstream` and `routes`, HTTP is not served."""
    listen: Address = ("127.0.0.1", 8080)
    """``HOST:PORT``; port 0 lets the system choose."""
    threads: Annotated[int, Field(gt=0, le=256)] = 1
    """Threads of the single process, each with its own filters; not allowed with several `workers`."""
    kong: File | None = None
    """A configuration of Kong, which has the filters, routes and upstreams instead of this file."""
    recycle: Recycle | None = None
    """When filters get new VMs; if not given, only after a failure."""
    stream_idle_timeout: Seconds = STREAM_IDLE_TIMEOUT
    """Seconds that a request may make no progress, for example because a filter holds it; then 408 or 504."""
    clients: Clients = Clients()
    forwarded: Forwarded = Forwarded()
    access_log: AccessLog = AccessLog()

    @model_validator(mode="after")
    def _routed(self) -> Settings:
        if self.upstream is None and not (self.routes or self.tcp):
            raise PydanticCustomError("missing", "is missing", {"path": ("upstream",)})
        if self.upstream is not None and (self.routes or self.upstreams):
            raise _wrong("upstream is for all requests: give either upstream, or upstreams and routes", "upstream")
        if self.threads > 1 and self.workers > 1:
            raise _wrong("threads need a single process: leave out workers, or threads", "threads")
        for number, route in enumerate(self.routes):
            if route.upstream is not None and route.upstream not in self.upstreams:
                raise _wrong(not_among("upstream", route.upstream, self.upstreams), "routes", number, "upstream")
            for name in route.weighted:
                if name not in self.upstreams:
                    raise _wrong(not_among("upstream", name, self.upstreams), "routes", number, "weighted", name)
            for target in (route.upstream, *route.weighted):
                if target is not None and self.upstreams[target].is_tcp:
                    raise _wrong(f"{target!r} has servers of tcp://: those are for listeners of tcp", "routes", number)
        if self.upstream is not None and self.upstream.is_tcp:
            raise _wrong("requests of HTTP go to http:// or https://: write a listener of tcp", "upstream", "url")
        for number, listener in enumerate(self.tcp):
            if listener.url is None and listener.upstream not in self.upstreams:
                raise _wrong(not_among("upstream", listener.upstream, self.upstreams), "tcp", number, "upstream")
            if listener.url is not None:
                try:
                    Upstream(url=listener.url)
                except ValidationError as error:
                    said = error.errors()[0]["msg"].removeprefix("Value error, ")
                    raise _wrong(said, "tcp", number, "upstream") from None
        return self

    @property
    def all_upstreams(self) -> dict[str, Upstream]:
        """By name: a single upstream is ``upstream``, and one that only a `tcp` listener has is named by its URL."""
        named = self.upstreams if self.upstream is None else {"upstream": self.upstream}
        return {**named, **{each.url: Upstream(url=each.url) for each in self.tcp if each.url is not None}}

    @property
    def server_tls(self) -> list[ServerTls]:
        """TLS of each listener that has it."""
        return [*super().server_tls, *(each.tls for each in self.tcp if each.tls is not None)]

    @property
    def all_routes(self) -> list[Route]:
        """The routes in their order; a single upstream gets all requests."""
        return self.routes or ([] if self.upstream is None else [Route(upstream="upstream")])

    @property
    def all_filters(self) -> list[Filter]:
        """The filters of all requests, then those of each route, then those of each `tcp` listener."""
        further = [*(route.filters for route in self.routes), *(listener.filters for listener in self.tcp)]
        return [*self.filters, *(filter for filters in further for filter in filters)]

    @property
    def chains(self) -> list[list[int]]:
        """The chains, as indexes into `all_filters`: that of requests without a route, then one for each route and one
        for each `tcp` listener.
        """
        first, chains = list(range(len(self.filters))), []
        chains.append(first)
        at = len(first)
        for route in self.routes:
            chains.append([*first, *range(at, at + len(route.filters))])
            at += len(route.filters)
        for listener in self.tcp:
            chains.append([*range(at, at + len(listener.filters))])
            at += len(listener.filters)
        return chains

    @property
    def serves_http(self) -> bool:
        """Whether HTTP is served."""
        return bool(self.all_routes)

    @property
    def chain_numbers(self) -> list[int | None]:
        """The number of each of `chains`, for the data plane; ``None`` for an empty chain."""
        return [number if chain else None for number, chain in enumerate(self.chains)]

    @property
    def any_upstream(self) -> Upstream | None:
        """How the data plane sends requests to URLs that a route's header names; ``None`` if it must not."""
        return None


def _wrong(said: str, *path: str | int) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{said}", {"said": said, "path": path})


def _dotted(tree: dict[str, Any], prefix: str = "") -> Any:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

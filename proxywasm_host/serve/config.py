"""What ``proxywasm serve`` can be told: the models of its configuration file.

The JSON schema of `Settings` is published as ``docs/serve.schema.json`` and printed by ``proxywasm serve --schema``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, SchemaError

from proxywasm_host import recording
from proxywasm_host.abi.profile import PROFILES
from proxywasm_host.abi.values import encode_value
from proxywasm_host.driver import recycle as recycling
from proxywasm_host.driver.defaults import DEADLINE, FAILURE_POLICY, MEMORY, RELOAD_INTERVAL, STREAM_IDLE_TIMEOUT
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.errors import not_among
from proxywasm_host.fetch.fetcher import ModuleFetcher
from proxywasm_host.fetch.reference import PullPolicy, check_sha256
from proxywasm_host.integrations.prometheus import SETS, Tag
from proxywasm_host.runtime import match as matches
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.serve.model import File, Model, ModuleSource, Seconds, Size
from proxywasm_host.serve.upstreams import Retry, Tls, Upstream, web
from proxywasm_host.services import MAX_CALLOUTS, Zone, ZonedSharedData, ZonedSharedQueues
from proxywasm_host.services.shared import Shared, check_shared, open_shared
from proxywasm_host.services.zones import SMALLEST

__all__ = [
    "Address",
    "Clients",
    "Cluster",
    "Filter",
    "HostSettings",
    "Record",
    "Recycle",
    "Route",
    "ServerTls",
    "Settings",
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
        raise ValueError(f"{value!r} is not a value of a property: those are text, numbers, true and false")  # noqa: TRY004
    encode_value(value)
    return value


def _text(value: Any) -> Any:
    """A configuration: text as it is, anything else as JSON."""
    if isinstance(value, (str, bytes)):
        return value
    _check_json(value, ())
    return json.dumps(value, ensure_ascii=False)


def _check_json(value: Any, path: tuple[Any, ...]) -> None:
    """Raises: PydanticCustomError, with the path of what JSON has no form for."""
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
    """What clients may ask of us."""

    max_headers: Annotated[int, Field(gt=0)] = 100
    """Headers of a request, and trailers; more is answered 431."""
    max_header_size: Size = 60 << 10
    """Bytes of a request's head; more is answered 431."""
    header_timeout: Seconds = 60.0
    """Seconds until the head of a request must have come in; else 408."""
    keepalive: Seconds = 5.0
    """Seconds that a connection without a request is kept."""
    max_connections: Annotated[int, Field(gt=0)] = 4096
    """Connections of one process; more are answered 503 and closed."""


class Cluster(Model):
    """A server that filters may call by the name of this cluster."""

    short = "url"

    url: str
    """For HTTP and gRPC http[s]://HOST[:PORT]; for Redis redis[s]://[USER:PASSWORD@]HOST[:PORT][/DATABASE]."""
    timeout: Seconds | None = None
    """Seconds for a whole call, if the filter does not say less."""
    connect_timeout: Seconds = 5.0
    """Seconds that connecting may take."""
    max_connections: Annotated[int, Field(gt=0)] = 1024
    """Connections of one process; what is more waits, for `connect_timeout` seconds."""
    max_callouts: Annotated[int, Field(gt=0)] = MAX_CALLOUTS
    """Callouts of one filter that may be under way; more are refused."""
    max_response: Size = 16 << 20
    """Bytes of an answer's body, of a message of gRPC, of an answer of Redis."""
    http2: bool = False
    """Offer HTTP/2 for HTTP callouts; gRPC has it always."""
    authority: str | None = None
    """What gRPC calls name as :authority, and a certificate is checked for, instead of the URL's host."""
    keep_alive: Seconds | None = None
    """Seconds after which a silent gRPC connection is asked for a sign of life."""
    redis_cluster: bool = False
    """Whether Redis is in cluster mode; the URL names one of its nodes."""
    tls: Tls = Tls()

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        return value if value.startswith(("redis://", "rediss://")) else web(value)


class Recycle(Model):
    """When all filters get new VMs, beside the old ones. Requests under way end on the VMs where they began."""

    memory: Size | None = None
    """Bytes of memory of a VM."""
    requests: Annotated[int, Field(gt=0)] | None = None
    """Requests that a VM has begun; each counts once for each filter that has the VM."""
    age: Seconds | None = None
    """Seconds since a VM started."""

    @model_validator(mode="after")
    def _checked(self) -> Recycle:
        self.recycle()
        return self

    def recycle(self) -> recycling.Recycle:
        """The `Recycle` that this describes."""
        return recycling.Recycle(**self.model_dump())


class GuestLimits(Model):
    """What a guest may use."""

    memory: Size = MEMORY
    """Bytes of memory; 256MiB for example."""
    deadline: Annotated[float, Field(ge=0, allow_inf_nan=False)] = DEADLINE
    """Seconds for a callback; 0 for no limit."""

    def limits(self) -> Limits:
        return Limits(self.memory, self.deadline or None)


def _names(value: list[str]) -> list[str]:
    matches.Match(value)
    return value


Names = Annotated[list[str], AfterValidator(_names)]


class Match(Model):
    """Requests that fit each of these that is given. A name may begin or end with ``*``, for any text."""

    hosts: Names = []
    """Of ``:authority``, without port."""
    paths: Names = []
    """Of the path, without query."""
    routes: Names = []
    """Names of routes."""
    clusters: Names = []
    """Names of upstreams, as in the property ``xds.cluster_name``."""
    unless: list[Match] = []
    """But for those that fit one of these."""

    def match(self) -> matches.Match:
        """The `Match` that this describes."""
        given = {name: getattr(self, name) for name in Match.model_fields if name != "unless"}
        return matches.Match(**given, unless=[each.match() for each in self.unless])


class Rule(Match):
    """What the filter is configured with for some requests, instead of its own configuration."""

    configuration: Text | None = None
    configuration_file: File | None = None
    disabled: bool = False
    """These requests pass without the filter."""

    @model_validator(mode="after")
    def _one_of_three(self) -> Rule:
        if (self.configuration is not None) + (self.configuration_file is not None) + self.disabled != 1:
            raise ValueError("give one of configuration, configuration_file and disabled: true")
        return self


class Filter(Model):
    """One filter of the chain."""

    short = "file"

    file: ModuleSource
    """The module: a file, relative to the configuration file, or a URL: https://…, oci://registry/name:tag, or the
    module itself: data:application/wasm;base64,….
    """
    sha256: Annotated[str, AfterValidator(check_sha256)] = ""
    """The digest that the module must have; for an image its manifest."""
    pull_policy: PullPolicy | None = None
    """Whether a URL without a digest is looked up although there is a module of it; for the tag ``latest`` it is."""
    name: str = ""
    """For logs, metrics and ``plugin_name``; that of its file if not given."""
    configuration: Text = b""
    """What the filter is configured with: text as it is, anything else as JSON."""
    configuration_file: File | None = None
    """A file that holds it instead."""
    match: Match | None = None
    """Requests that pass the filter; all if not given."""
    rules: list[Rule] = []
    """Configurations for some requests, instead; the first rule that fits counts. One without hosts, paths, routes and
    clusters fits all.
    """
    root_id: str = ""
    """Which of the module's filters is meant."""
    vm_id: str = ""
    """Filters of one vm_id and code share a VM."""
    vm_configuration: Text = b""
    """What its VM is configured with."""
    vm_configuration_file: File | None = None
    """A file that holds it instead."""
    environment: dict[str, str] = {}
    capabilities: list[str] | None = None
    """Hostcalls and callbacks that are allowed; all if not given."""
    failure_policy: FailurePolicy = FAILURE_POLICY
    """What requests get after the guest has failed: a new guest, 503, or their way without the filter."""
    allow_on_headers_stop_iteration: bool = False
    """PAUSE on headers lets the body come, as Envoy's option of that name."""
    reload_interval: Annotated[float, Field(ge=0, allow_inf_nan=False)] = RELOAD_INTERVAL
    """Base of fail_reload's back-off in seconds; 0: the next request gets a new guest."""
    isolation: Literal["none", "stream", "filter"] = "none"
    """Whether requests share its VM, or each has one of its own, for all filters of a module or for each of them. Of
    the profile wasmx."""
    unknown_imports: Literal["error", "stub"] = "error"
    engine: str | None = None
    """Instead of the chain's."""
    limits: GuestLimits | None = None
    """Instead of the chain's."""

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
    """Raises: ValueError, if it is none of the data plane's, which are those of the crate ``regex``."""
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
    """Where the client is to ask instead; what is not given is as in its request. Envoy's options of these names."""

    scheme: Literal["http", "https"] | None = None
    host: Annotated[str, StringConstraints(pattern="^[!-~]+$")] | None = None
    port: Annotated[int, Field(gt=0, le=65535)] | None = None
    path: PathStart | None = None
    """The whole path; with a query, if it is to have another one than that of the request."""
    prefix_rewrite: PathStart | None = None
    """Put in the place of the `prefix` or `path` of the route."""
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
    """Requests of a kind: where they go, and through which filters. The first route that fits counts."""

    name: str | None = None
    """The property ``xds.route_name``."""
    virtual_host: str | None = None
    """The property ``xds.virtual_host_name``. If a request's host is one of a virtual host's, only its routes count."""
    hosts: list[Annotated[str, AfterValidator(_host_pattern)]] = []
    """Hosts without port: ``api.example.com``, ``*.example.com``; any if not given."""
    path: PathStart | None = None
    """The whole path, without its query."""
    prefix: PathStart | None = None
    """How the path begins."""
    regex: Annotated[str, AfterValidator(_regex)] | None = None
    """A regular expression for the whole path, without its query."""
    methods: list[Annotated[str, StringConstraints(pattern="^[!-~]+$")]] = []
    """Any if not given."""
    headers: dict[HeaderName, str] = {}
    """Headers that must be there, with these values."""
    upstream: str | None = None
    """Name of the upstream."""
    weighted: dict[str, Annotated[int, Field(ge=0, le=1_000_000)]] = {}
    """Names of several upstreams instead, and the share of the requests that each gets."""
    cluster_header: HeaderName | None = None
    """The header that names the upstream instead; 503 if it names none."""
    redirect: Redirect | None = None
    """Send the client elsewhere instead, once the request has passed the filters."""
    direct_response: DirectResponse | None = None
    """Answer instead, once the request has passed the filters."""
    prefix_rewrite: PathStart | None = None
    """Put in the place of `prefix` or `path`; without one of them, before the path."""
    host_rewrite: Annotated[str, StringConstraints(pattern="^[!-~]+$")] | None = None
    """Sent as Host, and the client's as X-Forwarded-Host."""
    timeout: Seconds | None = None
    """Instead of the upstream's."""
    retry: Retry | None = None
    """Instead of the upstream's."""
    filters: list[Filter] = []
    """Behind those of the whole configuration."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Route:
        targets = (self.upstream, self.cluster_header, self.redirect, self.direct_response, self.weighted or None)
        if sum(target is not None for target in targets) != 1:
            raise ValueError("give one of upstream, weighted, cluster_header, redirect and direct_response")
        if self.weighted and not any(self.weighted.values()):
            raise ValueError("weighted: one upstream at least must have a weight above 0")
        if sum(match is not None for match in (self.path, self.prefix, self.regex)) > 1:
            raise ValueError("path, prefix and regex are for one route each")
        if self.regex is not None and self.prefix_rewrite is not None:
            raise ValueError("prefix_rewrite is for a path or prefix, not for a regex")
        return self


class ServerTls(Model):
    """TLS towards clients."""

    certificate: File
    """PEM file of the certificate, with its chain."""
    key: File | None = None
    """PEM file of its key, if that is not in the same file."""
    client_ca: File | None = None
    """PEM file of the authorities of clients' certificates, which are then demanded."""


class Forwarded(Model):
    """What upstream is told of the client, as Envoy's options of these names have it."""

    use_remote_address: bool = True
    """The connection's address is the client's: append it to X-Forwarded-For, set X-Forwarded-Proto."""
    xff_num_trusted_hops: Annotated[int, Field(ge=0)] = 0
    """Proxies before us whose X-Forwarded-For and -Proto are believed."""
    rfc7239: bool = False
    """Append an element to Forwarded as well, which Envoy does not."""
    generate_request_id: bool = True
    """Give a request that has no X-Request-Id one."""


class AccessLog(Model):
    """One line for each request."""

    format: Literal["common", "json", "off"] = "common"
    file: str = "-"
    """Where to append it; ``-`` is standard output."""


class Record(Model):
    """Which requests are recorded, for ``proxywasm replay``."""

    short = "directory"

    directory: File
    """Where recordings go, a file of JSON each; it is made if it is not there."""
    sample: Annotated[int, Field(gt=0)] = 1
    """One request of so many."""
    failures_only: bool = False
    """Only those that a guest has failed in, that were answered 500 or more, or broken off."""
    max_bytes: Size = 1 << 20
    """Of one recording, roughly; the rest is left out."""
    max_files: Annotated[int, Field(gt=0)] = 100
    """Recordings in the directory; the oldest go."""
    redact: list[str] = []
    """Names of headers, and of keys in a filter's configuration, whose values are masked."""
    redact_credentials: bool = True
    """Mask what says or looks that it is a credential: authorization, cookie, Bearer …."""
    redact_bodies: bool = False
    """Write bodies as so many x."""

    def record(self) -> recording.Record:
        """The `Record` that this describes."""
        return recording.Record(**self.model_dump())


class MetricTag(Model):
    """A label of metrics, as Envoy's ``TagSpecifier``."""

    tag_name: str
    """Name of the label."""
    regex: str
    """Its first group is removed from the name; its second, or else the first, is the value."""

    @model_validator(mode="after")
    def _checked(self) -> MetricTag:
        self.tag()
        return self

    def tag(self) -> Tag:
        """The `Tag` that this describes."""
        return Tag(self.tag_name, self.regex)


def _tag_set(value: str) -> str:
    if value not in SETS:
        raise ValueError(not_among("set of tags", value, SETS))
    return value


ZoneSize = Annotated[Size, Field(ge=SMALLEST)]


class ShmKv(Model):
    """A zone of shared data."""

    short = "size"

    size: ZoneSize
    """Bytes, with what its entries cost."""
    eviction: Literal["slru", "lru", "none"] = "slru"
    """What it forgets when it is full: what was not used for the longest time, of entries of a similar size first
    (``slru``) or of all (``lru``), or nothing."""

    @staticmethod
    def zones(given: Mapping[str, ShmKv]) -> ZonedSharedData:
        """Shared data in these zones, by name."""
        return ZonedSharedData(Zone(name, zone.size, zone.eviction) for name, zone in given.items())


class Modules(Model):
    """How modules that are named by URL are fetched."""

    directory: File | None = None
    """Where they are kept; in the user's cache directory if not given."""
    ca: File | None = None
    """PEM file of authorities that are trusted beside the system's."""
    plain_http: list[str] = []
    """Hosts, with their ports, that are asked without TLS; this machine's own always may."""
    docker_config: File | None = None
    """Docker's config.json with the credentials for registries; the user's own if not given."""
    timeout: Seconds = 60.0
    """Seconds that a fetch may take."""
    refresh_interval: Seconds | None = 60.0
    """Seconds until URLs whose pull_policy is Always are looked up again; null: never."""

    def fetcher(self) -> ModuleFetcher:
        """The `ModuleFetcher` that this describes."""
        said = self.model_dump()
        directory = said.pop("directory")
        return ModuleFetcher(**said) if directory is None else ModuleFetcher(directory, **said)


class HostSettings(Model):
    """What every server of filters can be told, whatever it is that it serves."""

    least: ClassVar[str] = "filters"
    """What must be said."""

    listen: Address = ("127.0.0.1", 0)
    """``HOST:PORT``; port 0 lets the system choose."""
    filters: list[Filter] = []
    """The chain of all requests, in the order of the request."""
    modules: Modules = Modules()
    engine: str | None = None
    """wasmtime, wasmer or v8; the best one installed if not given."""
    profile: str = "envoy"
    limits: GuestLimits = GuestLimits()
    buffer_limit: Size = 1 << 20
    """Bytes of a body that filters may hold back."""
    properties: dict[str, Property] = {}
    """Properties by dotted name that are the same for all requests."""
    clusters: dict[str, Cluster] = {}
    """Servers that filters may call, by name."""
    allow_any_host: bool = False
    """Whether filters may also call ``host:port`` that is not a cluster."""
    tls: ServerTls | None = None
    log_level: Literal["trace", "debug", "info", "warn", "error", "critical"] = "info"
    """Lowest level of the lines that filters log."""
    workers: Annotated[int, Field(gt=0, le=256)] = 1
    """Processes."""
    shared: Annotated[str, AfterValidator(_shared)] | None = None
    """Between which processes filters share data, queues and metrics: ``memory``, ``processes`` or ``redis://…``; those
    of this server if not given.
    """
    shm_kv: dict[str, ShmKv] = {}
    """Zones of shared data by name, as ngx_wasm_module has them: a key ``cache/…`` is in the zone ``cache``, any other
    in ``*``. Each process has its own; without any, shared data has no zones."""
    shm_queue: dict[str, ZoneSize] = {}
    """Sizes of shared queues by name; if there are any, filters can use no others."""
    admin: Address | None = None
    """``HOST:PORT`` of ``/metrics`` and of the page; none if not given."""
    metric_tags: list[Annotated[str, AfterValidator(_tag_set)] | MetricTag] = []
    """Labels that are taken out of the names that filters give their metrics: ``envoy``, ``istio``, ``kuadrant``,
    ``higress``, or regular expressions as in Envoy's ``stats_tags``.
    """
    admin_hosts: list[str] = []
    """Names by which the admin port may be asked, beside localhost and addresses; others are answered 421."""
    record: Record | None = None
    """Which requests are recorded; none if not given."""
    tracing: bool = False
    """Whether there are spans of OpenTelemetry, for which the environment has set up the SDK."""
    watch: bool = False
    """Whether changed filters and configurations are loaded while running."""
    shutdown_timeout: Annotated[int, Field(gt=0)] = 30
    """Seconds that requests get to end when the server is told to."""
    sample: Annotated[int, Field(gt=0)] = 64
    """One request of so many is counted for callbacks, hostcalls and time in filters, five a second at most; 1: all."""

    @field_validator("profile")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PROFILES:
            raise ValueError(not_among("profile", value, PROFILES))
        return value

    @field_validator("properties", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """Nested mappings are taken for dotted names."""
        return dict(_dotted(value)) if isinstance(value, dict) else value

    def open_shared(self, choice: str) -> Shared:
        """What filters share, where `choice` says who does; zones are this process's. Raises: ValueError."""
        shared = open_shared(choice)
        if self.shm_kv:
            shared = replace(shared, data=ShmKv.zones(self.shm_kv))
        if self.shm_queue:
            shared = replace(shared, queues=ZonedSharedQueues(self.shm_queue))
        return shared

    @property
    def tags(self) -> list[Tag]:
        """Labels of what filters count."""
        sets = [SETS[given] if isinstance(given, str) else (given.tag(),) for given in self.metric_tags]
        return [tag for tags in sets for tag in tags]

    @property
    def all_filters(self) -> list[Filter]:
        """The filters of all requests."""
        return self.filters

    @property
    def all_upstreams(self) -> dict[str, Upstream]:
        """Servers behind the filters, by name."""
        return {}

    @property
    def more_files(self) -> list[Path]:
        """Files that it is made of beside those that it names."""
        return []

    @property
    def behind(self) -> str:
        """These servers, for people."""
        return ", ".join(upstream.urls for upstream in self.all_upstreams.values())


class Settings(HostSettings):
    """The configuration of ``proxywasm serve``."""

    least: ClassVar[str] = "upstream"

    upstream: Upstream | None = None
    """The server behind the filters, if there is one for all requests."""
    upstreams: dict[str, Upstream] = {}
    """Servers by name, for `routes`."""
    routes: list[Route] = []
    """Where requests go, instead of `upstream`. What fits none of them is answered 404."""
    listen: Address = ("127.0.0.1", 8080)
    """``HOST:PORT``; port 0 lets the system choose."""
    threads: Annotated[int, Field(gt=0, le=256)] = 1
    """Threads that serve in the one process, each with filters of its own; not together with several `workers`."""
    recycle: Recycle | None = None
    """When filters get new VMs; only when one fails if not given."""
    stream_idle_timeout: Seconds = STREAM_IDLE_TIMEOUT
    """Seconds that a request may be without any progress, as when a filter holds it; then 408 or 504."""
    clients: Clients = Clients()
    forwarded: Forwarded = Forwarded()
    access_log: AccessLog = AccessLog()

    @model_validator(mode="after")
    def _routed(self) -> Settings:
        if self.upstream is None and not self.routes:
            raise PydanticCustomError("missing", "is missing", {"path": ("upstream",)})
        if self.upstream is not None and (self.routes or self.upstreams):
            raise _wrong("upstream is for all requests, and stands instead of upstreams and routes", "upstream")
        if self.threads > 1 and self.workers > 1:
            raise _wrong("threads are those of a single process: leave out workers, or threads", "threads")
        for number, route in enumerate(self.routes):
            if route.upstream is not None and route.upstream not in self.upstreams:
                raise _wrong(not_among("upstream", route.upstream, self.upstreams), "routes", number, "upstream")
            for name in route.weighted:
                if name not in self.upstreams:
                    raise _wrong(not_among("upstream", name, self.upstreams), "routes", number, "weighted", name)
        return self

    @property
    def all_upstreams(self) -> dict[str, Upstream]:
        """By name; a single one is called ``upstream``."""
        return self.upstreams if self.upstream is None else {"upstream": self.upstream}

    @property
    def all_routes(self) -> list[Route]:
        """In their order; a single upstream gets all requests."""
        return self.routes or [Route(upstream=name) for name in self.all_upstreams]

    @property
    def all_filters(self) -> list[Filter]:
        """Those of all requests, then those of each route."""
        return [*self.filters, *(filter for route in self.routes for filter in route.filters)]

    @property
    def chains(self) -> list[list[int]]:
        """The chain of requests without a route, then that of each route: places in `all_filters`."""
        first, chains = list(range(len(self.filters))), []
        chains.append(first)
        at = len(first)
        for route in self.routes:
            chains.append([*first, *range(at, at + len(route.filters))])
            at += len(route.filters)
        return chains

    @property
    def chain_numbers(self) -> list[int | None]:
        """For the data plane: the number of each of `chains`; ``None`` if no filter is in it."""
        return [number if chain else None for number, chain in enumerate(self.chains)]

    @property
    def any_upstream(self) -> Upstream | None:
        """For the data plane: how requests are sent to URLs that a route's header names; ``None`` if they are not."""
        return None


def _wrong(said: str, *path: str | int) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{said}", {"said": said, "path": path})


def _dotted(tree: dict[str, Any], prefix: str = "") -> Any:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

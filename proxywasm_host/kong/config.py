"""Kong's declarative configuration (``_format_version`` 1.1, 2.1, 3.0): its models, and what is not supported.

Names and defaults are those of Kong Gateway 3.9. `read` returns a `Configuration`, in which every entity has an id and
refers to others by id, however the file nests them. Nothing is ignored: a field of Kong that we do not support is an
error that says why, and an unknown field is an error, too. Each error has its file, line and path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from proxywasm_host.errors import ConfigError, not_among
from proxywasm_host.kong.context import Entity
from proxywasm_host.kong.router import regex
from proxywasm_host.serve.model import Model
from proxywasm_host.serve.source import error_lines, read_file

__all__ = ["OTHER_PROTOCOLS", "Configuration", "PluginUse", "read"]

Key = tuple["str | int", ...]
Protocol = Literal["http", "https", "grpc", "grpcs", "tcp", "tls", "tls_passthrough", "udp"]
Reference = Union[str, dict[str, str], None]
Milliseconds = Annotated[int, Field(ge=1, le=(1 << 31) - 2)]
OTHER_PROTOCOLS = "only http, https, grpc, grpcs and tcp are served here"
SNIS = "requests and connections are not routed by the name that TLS asks for"
EXPRESSIONS = "it belongs to the router flavor expressions; only the flavor traditional is supported here"
CERTIFICATES = "certificates are not read from this file: set the listener's with `tls` of `proxywasm serve`"
ENTERPRISE = "it belongs to Kong Enterprise"
SERVED = ("http", "https", "grpc", "grpcs", "tcp")
NOT_SERVED = ("tls", "tls_passthrough", "udp", "ws", "wss")
HASHES = ("consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture")
BALANCE = "requests are not spread by a hash or by latency; use round-robin or least-connections"
PROBES = "targets are not probed: their health is judged by the requests that they get (passive)"


def not_supported(why: str, *path: str) -> PydanticCustomError:
    """The error for one of Kong's fields or values that is not supported here."""
    return PydanticCustomError("wrong", "{said}", {"said": f"is not supported: {why}", "path": path})


class Entry(Model):
    """Base of all entities."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)
    unsupported: ClassVar[Mapping[str, str]] = {}
    """Kong's fields that are not supported here, and why."""
    unsupported_values: ClassVar[Mapping[str, tuple[Collection[Any], str]]] = {}
    """Kong's values of a field, or of an item in its list, that are not supported here, and why."""

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name, why in cls.unsupported.items():
                if value.get(name) not in (None, [], {}):
                    raise not_supported(why, name)
            for name, (values, why) in cls.unsupported_values.items():
                given = value.get(name)
                for each in given if isinstance(given, list) else [given]:
                    if isinstance(each, (str, int, float)) and each in values:
                        raise not_supported(f"{each!r}: {why}", name)
            return {name: given for name, given in value.items() if name not in cls.unsupported}
        return value


class Common(Entry):
    """The fields that all entities have."""

    id: str | None = None
    tags: list[str] | None = None
    created_at: int | None = None
    updated_at: int | None = None


class ChainFilter(Entry):
    """A filter of a filter chain."""

    name: str
    enabled: bool = True
    config: Any = None


class FilterChain(Common):
    """Filters of a service or of a route."""

    name: str | None = None
    enabled: bool = True
    service: Reference = None
    route: Reference = None
    filters: Annotated[list[ChainFilter], Field(min_length=1)]


class Plugin(Common):
    """A use of a plugin: for all requests, or for those of a service, a route or a consumer."""

    unsupported: ClassVar[Mapping[str, str]] = {
        "ordering": f"plugins run by their priorities; {ENTERPRISE}",
        "condition": ENTERPRISE,
        "consumer_group": "there are no consumer groups here",
    }
    unsupported_values: ClassVar[Mapping[str, Any]] = {"protocols": (("ws", "wss"), OTHER_PROTOCOLS)}
    name: str
    instance_name: str | None = None
    config: dict[str, Any] | None = None
    enabled: bool = True
    protocols: list[Protocol] = ["grpc", "grpcs", "http", "https"]
    service: Reference = None
    route: Reference = None
    consumer: Reference = None

    @field_validator("protocols")
    @classmethod
    def _of_ours(cls, value: list[str]) -> list[str]:
        """Check that one of the protocols is served; the plugin is not called for others."""
        if not set(value) & set(SERVED):
            raise not_supported(OTHER_PROTOCOLS)
        return value


def _network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is not an address or a network: write it as 10.0.0.1 or 10.0.0.0/8") from None
    return value


class Peer(Entry):
    """A condition on one side of a connection."""

    ip: Annotated[str | None, AfterValidator(lambda value: value and _network(value))] = None
    port: Annotated[int | None, Field(ge=0, le=65535)] = None

    @model_validator(mode="after")
    def _says_something(self) -> Peer:
        if self.ip is None and self.port is None:
            raise ValueError("at least one of ip and port must be given")
        return self


def _path(value: str) -> str:
    if value.startswith("~"):
        regex(value[1:])
    elif not value.startswith("/"):
        raise ValueError(f"{value!r} should start with: / (fixed path) or ~/ (regex path)")
    return value


class Route(Common):
    """Which requests go to a service."""

    unsupported: ClassVar[Mapping[str, str]] = {
        "snis": SNIS,
        "expression": EXPRESSIONS,
        "priority": EXPRESSIONS,
    }
    unsupported_values: ClassVar[Mapping[str, Any]] = {"protocols": (NOT_SERVED, OTHER_PROTOCOLS)}
    name: str | None = None
    protocols: list[Literal["http", "https", "grpc", "grpcs", "tcp"]] = ["http", "https"]
    sources: list[Peer] | None = None
    destinations: list[Peer] | None = None
    methods: list[Annotated[str, Field(pattern="^[A-Z]+$")]] | None = None
    hosts: list[Annotated[str, Field(min_length=1)]] | None = None
    paths: list[Annotated[str, AfterValidator(_path)]] | None = None
    headers: dict[str, list[str]] | None = None
    https_redirect_status_code: Literal[426, 301, 302, 307, 308] = 426
    regex_priority: int = 0
    strip_path: bool = True
    path_handling: Literal["v0", "v1"] = "v0"
    preserve_host: bool = False
    request_buffering: bool = True
    response_buffering: bool = True
    service: Reference = None
    plugins: list[Plugin] = []
    filter_chains: list[FilterChain] = []

    @field_validator("headers")
    @classmethod
    def _expressions(cls, value: dict[str, list[str]] | None) -> dict[str, list[str]] | None:
        for values in (value or {}).values():
            if len(values) == 1 and values[0].startswith("~*"):
                regex(values[0][2:])
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Route:
        if "tcp" in self.protocols:
            if set(self.protocols) != {"tcp"}:
                raise ValueError("protocols: a route is for tcp, or for protocols of HTTP")
            for name in ("methods", "hosts", "paths", "headers", "filter_chains"):
                if getattr(self, name):
                    said = "is for HTTP, not for tcp"
                    raise PydanticCustomError("wrong", "{said}", {"said": said, "path": (name,)})
            if not (self.sources or self.destinations):
                raise ValueError("must set one of 'sources', 'destinations'")
            return self
        for name in ("sources", "destinations"):
            if getattr(self, name):
                raise PydanticCustomError("wrong", "{said}", {"said": "is for tcp, not for HTTP", "path": (name,)})
        if not (self.methods or self.hosts or self.paths or self.headers):
            raise ValueError("must set one of 'methods', 'hosts', 'headers', 'paths'")
        return self


class Service(Common):
    """Where requests go."""

    unsupported: ClassVar[Mapping[str, str]] = {
        "client_certificate": CERTIFICATES,
        "ca_certificates": CERTIFICATES,
        "tls_verify_depth": "the depth of a certificate chain cannot be limited here",
    }
    unsupported_values: ClassVar[Mapping[str, Any]] = {
        "protocol": (("tls_passthrough", "udp", "ws", "wss"), f"{OTHER_PROTOCOLS}, and tls to services")
    }
    name: str | None = None
    protocol: Literal["http", "https", "grpc", "grpcs", "tcp", "tls"] = "http"
    host: str
    port: Annotated[int, Field(ge=0, le=65535)] = 80
    path: Annotated[str, Field(pattern="^/")] | None = None
    retries: Annotated[int, Field(ge=0, le=32767)] = 5
    connect_timeout: Milliseconds = 60000
    write_timeout: Milliseconds = 60000
    read_timeout: Milliseconds = 60000
    tls_verify: bool | None = None
    enabled: bool = True
    routes: list[Route] = []
    plugins: list[Plugin] = []
    filter_chains: list[FilterChain] = []

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: Any) -> Any:
        """Replace ``url``, which is short for protocol, host, port and path."""
        if not isinstance(value, dict) or "url" not in value:
            return value
        value = dict(value)
        url = value.pop("url")
        parts = urlsplit(url if isinstance(url, str) else "")
        try:
            port = parts.port or (443 if parts.scheme in {"https", "grpcs"} else 80)
        except ValueError:
            port = None
        if not parts.scheme or not parts.hostname or port is None or parts.query or parts.fragment:
            said = f"{url!r} is not the URL of a service: write it as http://HOST:PORT/PATH"
            raise PydanticCustomError("wrong", "{said}", {"said": said, "path": ("url",)})
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return {"protocol": parts.scheme, "host": host, "port": port, "path": parts.path or None, **value}


class Target(Common):
    """A server of an upstream."""

    target: str
    weight: Annotated[int, Field(ge=0, le=65535)] = 100
    upstream: Reference = None

    @field_validator("target")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(f"//{value}")
        try:
            good = bool(parts.hostname) and not parts.path and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"{value!r} is not a target: write it as HOST:PORT")
        return value if parts.port else f"{value}:8000"


class Unhealthy(Entry):
    """When a target gets no requests for a while."""

    http_failures: Annotated[int, Field(ge=0, le=255)] = 0
    tcp_failures: Annotated[int, Field(ge=0, le=255)] = 0
    timeouts: Annotated[int, Field(ge=0, le=255)] = 0
    http_statuses: list[int] = [429, 500, 503]

    @field_validator("http_statuses")
    @classmethod
    def _usual(cls, value: list[int]) -> list[int]:
        if set(value) != {429, 500, 503}:
            raise not_supported("here exactly the statuses from 500 on are failures: leave it out")
        return value


class Healthy(Entry):
    """When a target is healthy again: after a time, not after successes."""

    http_statuses: list[int] = []
    successes: Annotated[int, Field(ge=0, le=255)] = 0

    @field_validator("successes")
    @classmethod
    def _none(cls, value: int) -> int:
        if value:
            raise ValueError("is not supported: a target that was left out returns after a time, not after successes")
        return value


class Passive(Entry):
    """Health of a target, judged by the requests that it gets."""

    type: Literal["tcp", "http", "https", "grpc", "grpcs"] = "http"
    healthy: Healthy = Healthy()
    unhealthy: Unhealthy = Unhealthy()


class Active(Entry):
    """Probes, which must be off, as by default in Kong."""

    type: Literal["tcp", "http", "https", "grpc", "grpcs"] = "http"
    timeout: float = 1
    concurrency: int = 10
    http_path: str = "/"
    https_sni: str | None = None
    https_verify_certificate: bool = True
    headers: dict[str, list[str]] | None = None
    healthy: dict[str, Any] = {}
    unhealthy: dict[str, Any] = {}

    @model_validator(mode="after")
    def _off(self) -> Active:
        for name in ("healthy", "unhealthy"):
            if getattr(self, name).get("interval"):
                raise not_supported(PROBES, name, "interval")
        return self


class Healthchecks(Entry):
    """Health of targets."""

    unsupported_values: ClassVar[Mapping[str, Any]] = {
        "threshold": (range(1, 101), "requests go to the healthy targets, however few they are")
    }
    active: Active = Active()
    passive: Passive = Passive()
    threshold: Literal[0] = 0


class Upstream(Common):
    """Servers under a name that services use as their host."""

    unsupported: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            (
                *("hash_on_header", "hash_fallback_header", "hash_on_cookie", "hash_on_query_arg"),
                *("hash_fallback_query_arg", "hash_on_uri_capture", "hash_fallback_uri_capture"),
            ),
            BALANCE,
        ),
        "client_certificate": CERTIFICATES,
    }
    unsupported_values: ClassVar[Mapping[str, Any]] = {
        "algorithm": (("consistent-hashing", "latency"), BALANCE),
        "hash_on": (HASHES, BALANCE),
        "hash_fallback": (HASHES, BALANCE),
        "use_srv_name": ((True,), "targets are addresses and names, not SRV records"),
    }
    name: str
    algorithm: Literal["round-robin", "least-connections"] = "round-robin"
    hash_on: Literal["none"] = "none"
    hash_fallback: Literal["none"] = "none"
    hash_on_cookie_path: str = "/"
    slots: int = 10000
    host_header: str | None = None
    use_srv_name: Literal[False] = False
    healthchecks: Healthchecks = Healthchecks()
    targets: list[Target] = []


class Consumer(Common):
    """A user of services, and the credentials that plugins look for, by collection."""

    model_config = ConfigDict(extra="allow", frozen=True)

    username: str | None = None
    custom_id: str | None = None
    plugins: list[Plugin] = []

    @model_validator(mode="after")
    def _credentials(self) -> Consumer:
        if self.username is None and self.custom_id is None:
            raise ValueError("at least one of username and custom_id must be given")
        for name, value in (self.model_extra or {}).items():
            if name not in CREDENTIALS:
                said = f"is not known: {not_among('collection of credentials', name, CREDENTIALS)}"
                raise PydanticCustomError("wrong", "{said}", {"said": said, "path": (name,)})
            if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
                raise PydanticCustomError("wrong", "{said}", {"said": "is a list of mappings", "path": (name,)})
        return self


CREDENTIALS = (
    *("keyauth_credentials", "basicauth_credentials", "acls", "jwt_secrets", "hmacauth_credentials"),
    "oauth2_credentials",
)
"""Collections that plugins define; each entity names its consumer."""


class File(Entry):
    """A declarative configuration."""

    unsupported: ClassVar[Mapping[str, str]] = {
        "certificates": CERTIFICATES,
        "ca_certificates": CERTIFICATES,
        "snis": CERTIFICATES,
        "vaults": "secrets are not read from vaults; use environment variables of the shell that writes the file",
        "consumer_groups": ENTERPRISE,
        "key_sets": "keys are not read from this file",
        "keys": "keys are not read from this file",
        "workspaces": ENTERPRISE,
        "rbac_users": ENTERPRISE,
    }
    format_version: Annotated[Literal["1.1", "2.1", "3.0"], Field(alias="_format_version")]
    transform: Annotated[bool, Field(alias="_transform")] = True
    comment: Annotated[str | None, Field(alias="_comment")] = None
    ignore: Annotated[Any, Field(alias="_ignore")] = None
    info: Annotated[Any, Field(alias="_info")] = None
    services: list[Service] = []
    routes: list[Route] = []
    plugins: list[Plugin] = []
    filter_chains: list[FilterChain] = []
    upstreams: list[Upstream] = []
    targets: list[Target] = []
    consumers: list[Consumer] = []
    keyauth_credentials: list[dict[str, Any]] = []
    basicauth_credentials: list[dict[str, Any]] = []
    acls: list[dict[str, Any]] = []
    jwt_secrets: list[dict[str, Any]] = []
    hmacauth_credentials: list[dict[str, Any]] = []
    oauth2_credentials: list[dict[str, Any]] = []

    @field_validator("format_version", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, float) else value


# -- The result --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PluginUse:
    """A use of a plugin."""

    name: str
    config: Mapping[str, Any]
    where: str
    """File, line and path, for messages."""
    service: str | None = None
    """Ids of the service, route and consumer that it is limited to; ``None`` for all."""
    route: str | None = None
    consumer: str | None = None
    protocols: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class FilterUse:
    """A use of a filter in a chain."""

    name: str
    config: Any
    where: str


@dataclass
class Configuration:
    """All entities without their nesting, by Kong's name of their collection."""

    file: Path | None = None
    entities: dict[str, list[Entity]] = field(default_factory=dict)
    plugins: list[PluginUse] = field(default_factory=list)
    chains: dict[str, list[FilterUse]] = field(default_factory=dict)
    """Filters by the id of their service or route."""
    places: dict[str, str] = field(default_factory=dict)
    """File, line and path of each route, by its id."""

    def of(self, collection: str) -> list[Entity]:
        """The entities of a collection."""
        return self.entities.get(collection, [])


def read(file: Path) -> Configuration:
    """Read and check a declarative configuration. Raises: ConfigError, with a line for each error."""
    data, lines = read_file(file, "the configuration", "a configuration of Kong is a mapping, with '_format_version'")
    try:
        parsed = File.model_validate(data, context=file.absolute().parent)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(error_lines(error, file, lines, "Kong's documentation", "the configuration"))
        ) from None
    return _Flattener(file, lines, parsed).configuration


class _Flattener:
    """Makes a `Configuration` from a file. Raises: ConfigError."""

    def __init__(self, file: Path, lines: Mapping[Key, int], parsed: File) -> None:
        self._file, self._lines = file, lines
        self._wrong: list[str] = []
        self.configuration = Configuration(file)
        self._ids: dict[str, dict[str, str]] = {}
        """The id for each name and each id, by collection."""
        for number, upstream in enumerate(parsed.upstreams):
            entity = self._add("upstreams", upstream, ("upstreams", number), {"targets"})
            for target in upstream.targets:
                self._put("targets", {**target.model_dump(exclude={"upstream"}), "upstream": {"id": entity["id"]}})
        for number, target in enumerate(parsed.targets):
            path: Key = ("targets", number)
            found = self._refer("upstreams", target.upstream, (*path, "upstream"))
            self._put("targets", {**target.model_dump(exclude={"upstream"}), "upstream": {"id": found}})
        services = [(service, ("services", number)) for number, service in enumerate(parsed.services)]
        added = [(service, path, self._add("services", service, path, NESTED)["id"]) for service, path in services]
        for number, consumer in enumerate(parsed.consumers):
            self._consumer(consumer, ("consumers", number))
        routes: list[tuple[Route, Key, str | None]] = []
        for service, path, id in added:
            routes += [(route, (*path, "routes", number), id) for number, route in enumerate(service.routes)]
        routes += [(route, ("routes", number), None) for number, route in enumerate(parsed.routes)]
        for route, path, service_id in routes:
            self._route(route, path, service_id)
        for service, path, id in added:
            self._within(service, path, {"service": id})
        self._plugins(parsed.plugins, ("plugins",), {})
        self._chains(parsed.filter_chains, ("filter_chains",), {})
        for name in CREDENTIALS:
            for number, credential in enumerate(getattr(parsed, name)):
                where: Key = (name, number)
                found = self._refer("consumers", credential.get("consumer"), (*where, "consumer"))
                self._put(name, {**credential, "consumer": {"id": found}})
        if self._wrong:
            raise ConfigError("\n".join(self._wrong))

    def where(self, path: Key) -> str:
        """File, line and path, for messages."""
        known = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in self._lines), ())
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        return f"{self._file}:{self._lines.get(known, 1)}: {dotted}"

    def _put(self, collection: str, entity: dict[str, Any]) -> dict[str, Any]:
        if not entity.get("id"):
            said = (
                f"{collection}/{len(self.configuration.of(collection))}/{entity.get('name') or entity.get('username')}"
            )
            entity["id"] = str(uuid5(NAMESPACE_URL, said))
        self.configuration.entities.setdefault(collection, []).append(entity)
        return entity

    def _add(self, collection: str, entry: Common, path: Key, without: set[str]) -> dict[str, Any]:
        entity = self._put(collection, entry.model_dump(exclude=without))
        ids = self._ids.setdefault(collection, {})
        for name in (entity["id"], entity.get("name"), entity.get("username")):
            if name is not None and ids.setdefault(name, entity["id"]) != entity["id"]:
                self._wrong.append(f"{self.where(path)}: another entity of {collection} has the name {name!r}")
        return entity

    def _refer(self, collection: str, reference: Any, path: Key, given: str | None = None) -> str | None:
        """The id of a referenced entity. The reference is a name or an id, or ``{name: …}`` or ``{id: …}``."""
        if reference is None:
            return given
        named = reference
        if isinstance(reference, Mapping):
            named = next((reference[key] for key in ("id", "name", "username") if key in reference), None)
        ids = self._ids.get(collection, {})
        if named not in ids:
            self._wrong.append(f"{self.where(path)}: {not_among(collection[:-1], named, ids)}")
            return None
        if given is not None and ids[named] != given:
            self._wrong.append(f"{self.where(path)}: it is nested in another entity of {collection}")
        return ids[named]

    def _route(self, route: Route, path: Key, service: str | None) -> None:
        service = self._refer("services", route.service, (*path, "service"), service)
        entity = self._add("routes", route, path, {*NESTED, "service"})
        if service is not None:
            protocol = next(each["protocol"] for each in self.configuration.of("services") if each["id"] == service)
            if ("tcp" in route.protocols) != (protocol in {"tcp", "tls"}):
                self._wrong.append(f"{self.where(path)}: its protocols do not fit its service, which has {protocol}")
        self.configuration.places[entity["id"]] = self.where(path)
        entity["service"] = None if service is None else {"id": service}
        self._within(route, path, {"route": entity["id"]})

    def _consumer(self, consumer: Consumer, path: Key) -> None:
        entity = self._add("consumers", consumer, path, {"plugins", *(consumer.model_extra or ())})
        self._plugins(consumer.plugins, (*path, "plugins"), {"consumer": entity["id"]})
        for name, credentials in (consumer.model_extra or {}).items():
            for credential in credentials:
                self._put(name, {**credential, "consumer": {"id": entity["id"]}})

    def _within(self, entry: Service | Route, path: Key, scope: dict[str, str]) -> None:
        self._plugins(entry.plugins, (*path, "plugins"), scope)
        self._chains(entry.filter_chains, (*path, "filter_chains"), scope)

    def _scope(self, entry: Plugin | FilterChain, path: Key, scope: Mapping[str, str]) -> dict[str, str | None]:
        return {
            kind: self._refer(f"{kind}s", getattr(entry, kind, None), (*path, kind), scope.get(kind))
            for kind in ("service", "route", "consumer")
        }

    def _plugins(self, plugins: list[Plugin], path: Key, scope: Mapping[str, str]) -> None:
        for number, plugin in enumerate(plugins):
            if not plugin.enabled:
                continue
            at = (*path, number)
            found = self._scope(plugin, at, scope)
            entity = self._put("plugins", {**plugin.model_dump(), **{k: v and {"id": v} for k, v in found.items()}})
            use = PluginUse(
                plugin.name,
                plugin.config or {},
                self.where((*at, "config")),
                **found,
                protocols=tuple(plugin.protocols),
                id=entity["id"],
            )
            same = (use.name, use.service, use.route, use.consumer)
            if any(same == (old.name, old.service, old.route, old.consumer) for old in self.configuration.plugins):
                self._wrong.append(f"{self.where(at)}: plugin {use.name!r} is configured twice for the same requests")
            self.configuration.plugins.append(use)

    def _chains(self, chains: list[FilterChain], path: Key, scope: Mapping[str, str]) -> None:
        for number, chain in enumerate(chains):
            at = (*path, number)
            found = self._scope(chain, at, scope)
            owners = [id for id in (found["service"], found["route"]) if id is not None]
            if len(owners) != 1:
                self._wrong.append(f"{self.where(at)}: a filter chain is for one route or for one service")
                continue
            if owners[0] in self.configuration.chains:
                self._wrong.append(f"{self.where(at)}: another filter chain is for the same requests")
            if chain.enabled:
                self.configuration.chains[owners[0]] = list(self._filters(chain, (*at, "filters")))

    def _filters(self, chain: FilterChain, path: Key) -> Iterator[FilterUse]:
        for number, one in enumerate(chain.filters):
            if one.enabled:
                yield FilterUse(one.name, one.config, self.where((*path, number)))


NESTED = {"routes", "plugins", "filter_chains"}

"""What ``proxywasm serve`` can be told: the models of its configuration file.

The JSON schema of `Settings` is published as ``docs/serve.schema.json`` and printed by ``proxywasm serve --schema``.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from proxywasm_host import recording
from proxywasm_host.abi.profile import PROFILES
from proxywasm_host.abi.values import encode_value
from proxywasm_host.driver.defaults import DEADLINE, FAILURE_POLICY, MEMORY, RELOAD_INTERVAL, STREAM_IDLE_TIMEOUT
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.errors import not_among
from proxywasm_host.runtime.failure_policy import FailurePolicy

__all__ = ["Address", "Clients", "Cluster", "Filter", "Record", "Settings", "Tls", "Upstream", "UpstreamTls"]

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", value.lower())
    if not found:
        raise ValueError(f"{value!r} is no size: write it as 1000, 64KiB or 256MiB")
    return int(found[1]) * UNITS[found[2]]


def _address(value: Any) -> Any:
    """``HOST:PORT``, ``:PORT`` or ``[IPv6]:PORT``."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f":{value}"
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([^:\s]*)):(\d{1,5})", value) if isinstance(value, str) else None
    if not found or int(found[3]) > 65535:
        raise ValueError(f"{value!r} is no address: write it as HOST:PORT, 127.0.0.1:8080 or [::1]:8080")
    return found[1] or found[2] or "127.0.0.1", int(found[3])


def _property(value: Any) -> Any:
    if not isinstance(value, (str, int, float, bool)):
        raise ValueError(f"{value!r} is no value of a property: those are text, numbers, true and false")  # noqa: TRY004
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
                said = f"the key {key!r} is no text: put it in quotes"
                break
            _check_json(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _check_json(item, (*path, number))
    elif not (value is None or isinstance(value, (str, int)) or (isinstance(value, float) and isfinite(value))):
        said = f"{value!r} is no value of JSON"
    if said:
        raise PydanticCustomError("no_json", "{said}", {"said": said, "path": path})


def _beside(value: Path, info: ValidationInfo) -> Path:
    """A path as the configuration file means it: from the directory that it is in, which is the context."""
    return value if info.context is None else info.context / value


File = Annotated[Path, AfterValidator(_beside)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0), WithJsonSchema({"type": ["integer", "string"]})]
"""Bytes, as a number or with a unit: ``256MiB``."""
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Address = Annotated[tuple[str, int], BeforeValidator(_address), WithJsonSchema({"type": ["string", "integer"]})]
Text = Annotated[bytes, BeforeValidator(_text), WithJsonSchema({})]
Property = Annotated[
    Any, BeforeValidator(_property), WithJsonSchema({"type": ["string", "integer", "number", "boolean"]})
]


class Model(BaseModel):
    """Base: a name that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    short: ClassVar[str] = ""
    """The value that a text stands for where it is written instead of a mapping: ``upstream: http://…``."""

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        return {cls.short: value} if cls.short and isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML has true for yes and on, and Python takes true for 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind in (int, float, Seconds | None):
            raise ValueError(f"{value!r} is no number")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.short:
            whole = handler.resolve_ref_schema(schema)
            written_out = dict(whole)
            whole.clear()
            whole.update(anyOf=[written_out, {"type": "string", "description": f"The {cls.short} alone."}])
        return schema


def _web(value: str) -> str:
    if not re.fullmatch("[!-~]+", value):
        raise ValueError(f"{value!r} is no URL: percent-encode what is in its path, and write the name as xn--…")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is no URL of a server: write it as http://HOST:PORT or https://HOST")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"{value!r} has more in it than a server: leave out user, query and fragment")
    _ = parts.port  # raises ValueError
    return value


class Tls(Model):
    """TLS towards a server."""

    verify: bool = True
    """Whether its certificate is checked."""
    ca: File | None = None
    """PEM file of the authorities to trust, instead of the system's."""
    certificate: File | None = None
    """PEM file of our own certificate, for servers that ask for one."""
    key: File | None = None
    """PEM file of its key, if that is not in the same file."""


class UpstreamTls(Tls):
    """TLS towards upstream."""

    server_name: str | None = None
    """Name to ask for (SNI) and to check, instead of the URL's."""


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


class Upstream(Model):
    """The server behind the filters."""

    short = "url"

    url: str
    """``http://HOST:PORT`` or ``https://HOST``; a path is put before that of each request."""
    connect_timeout: Seconds = 5.0
    """Seconds until it must have taken a connection; else 503."""
    max_headers: Annotated[int, Field(gt=0)] = 100
    """Headers of a response, and trailers; more is 502."""
    max_header_size: Size = 60 << 10
    """Bytes of a response's head; more is 502."""
    timeout: Seconds = 15.0
    """Seconds from the end of the request until its response must have begun; else 504."""
    idle_timeout: Seconds = 300.0
    """Seconds that a body may make no progress; then the stream is broken off."""
    max_connections: Annotated[int, Field(gt=0)] = 1024
    """Connections of one process; more requests wait, for `connect_timeout` seconds."""
    keepalive: Seconds = 4.0
    """Seconds that an idle connection is kept; less than the server keeps it."""
    rewrite_host: bool = False
    """Send the URL's host as Host, and the client's as X-Forwarded-Host, instead of the client's Host."""
    tls: UpstreamTls = UpstreamTls()

    _url = field_validator("url")(_web)


class Cluster(Model):
    """A server that filters may call by the name of this cluster."""

    short = "url"

    url: str
    timeout: Seconds | None = None
    """Seconds for a whole call, if the filter does not say less."""
    tls: Tls = Tls()

    _url = field_validator("url")(_web)


class GuestLimits(Model):
    """What a guest may use."""

    memory: Size = MEMORY
    """Bytes of memory; 256MiB for example."""
    deadline: Annotated[float, Field(ge=0, allow_inf_nan=False)] = DEADLINE
    """Seconds for a callback; 0 for no limit."""

    def limits(self) -> Limits:
        return Limits(self.memory, self.deadline or None)


class Filter(Model):
    """One filter of the chain."""

    short = "file"

    file: File
    """The module, relative to the configuration file."""
    name: str = ""
    """For logs, metrics and ``plugin_name``; that of its file if not given."""
    configuration: Text = b""
    """What the filter is configured with: text as it is, anything else as JSON."""
    configuration_file: File | None = None
    """A file that holds it instead."""
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
        return recording.Record(**self.model_dump())


class Settings(Model):
    """The configuration of ``proxywasm serve``."""

    upstream: Upstream
    listen: Address = ("127.0.0.1", 8080)
    """``HOST:PORT``; port 0 lets the system choose."""
    filters: list[Filter] = []
    """The chain, in the order of the request."""
    engine: str | None = None
    """wasmtime, wasmer or v8; the best one installed if not given."""
    profile: str = "envoy"
    limits: GuestLimits = GuestLimits()
    stream_idle_timeout: Seconds = STREAM_IDLE_TIMEOUT
    """Seconds that a request may be without any progress, as when a filter holds it; then 408 or 504."""
    buffer_limit: Size = 1 << 20
    """Bytes of a body that filters may hold back."""
    properties: dict[str, Property] = {}
    """Properties by dotted name that are the same for all requests."""
    clusters: dict[str, Cluster] = {}
    """Servers that filters may call, by name."""
    allow_any_host: bool = False
    """Whether filters may also call ``host:port`` that is no cluster."""
    tls: ServerTls | None = None
    clients: Clients = Clients()
    forwarded: Forwarded = Forwarded()
    access_log: AccessLog = AccessLog()
    log_level: Literal["trace", "debug", "info", "warn", "error", "critical"] = "info"
    """Lowest level of the lines that filters log."""
    workers: Annotated[int, Field(gt=0, le=256)] = 1
    """Processes."""
    admin: Address | None = None
    """``HOST:PORT`` of ``/metrics`` and of the page; none if not given."""
    admin_hosts: list[str] = []
    """Names by which the admin port may be asked, beside localhost and addresses; others are answered 421."""
    record: Record | None = None
    """Which requests are recorded; none if not given."""
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


def _dotted(tree: dict[str, Any], prefix: str = "") -> Any:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

"""The state of one request that plugins read and change, behind Kong's PDK (``kong.request``, ``kong.response``, …).

Text is `str` with one character for each byte (latin-1), so that nothing is lost; bodies are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Union

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import LogLevel

__all__ = [
    "PENDING_HEADERS",
    "Client",
    "Context",
    "Entity",
    "Exit",
    "Headers",
    "Log",
    "Request",
    "Response",
    "Route",
    "Upstream",
]

PENDING_HEADERS = "response headers"
"""Key in `Context.state` of the `Headers` that plugins set before the response arrives, and that are added to it."""

Entity = Mapping[str, Any]
"""A service, route, consumer or credential as the configuration has it, with Kong's field names; `id` is always set."""


class Log(Protocol):
    """Logs lines of plugins."""

    def __call__(self, level: LogLevel, message: str, /) -> None:
        """Write `message`."""
        ...


class Headers:
    """Headers of a message, without pseudo headers. Names are not case-sensitive."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: HeaderList) -> None:
        """`pairs` are changed in place; their names are in lower case."""
        self.pairs = pairs

    def get(self, name: str) -> str | None:
        """The first value of a header."""
        wanted = _name(name)
        for key, value in self.pairs:
            if key == wanted:
                return value.decode("latin-1")
        return None

    def all(self, name: str) -> list[str]:
        """All values of a header."""
        wanted = _name(name)
        return [value.decode("latin-1") for key, value in self.pairs if key == wanted]

    def set(self, name: str, value: Union[str, Sequence[str]]) -> None:
        """Replace a header with one value, or with several. Raises: ValueError, for a line break or NUL in a value."""
        key, pairs = _name(name), self.pairs
        new = [(key, _value(each)) for each in ([value] if isinstance(value, str) else value)]
        places = [place for place, pair in enumerate(pairs) if pair[0] == key]
        for place in reversed(places[1:]):
            del pairs[place]
        at = places[0] if places else len(pairs)
        pairs[at : at + 1] = new

    def replace(self, headers: Mapping[bytes, str]) -> None:
        """Remove all headers of these names (in lower case), and add these pairs at the end. Raises: as `set`."""
        self.pairs[:] = [pair for pair in self.pairs if pair[0] not in headers]
        self.pairs += [(name, _value(value)) for name, value in headers.items()]

    def add(self, name: str, value: str) -> None:
        """Add a value after the existing ones."""
        self.pairs.append((_name(name), _value(value)))

    def remove(self, name: str) -> None:
        """Remove all values of a header."""
        unwanted = _name(name)
        self.pairs[:] = [pair for pair in self.pairs if pair[0] != unwanted]

    def by_name(self) -> dict[str, list[str]]:
        """All values by name, in the order in which the names first appear."""
        found: dict[str, list[str]] = {}
        for name, value in self.pairs:
            found.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        return found

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.pairs)

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"


def _name(name: str) -> bytes:
    return name.lower().encode("latin-1")


def _value(value: str) -> bytes:
    """A value as bytes. Raises: ValueError, for a line break or NUL in it."""
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError(f"a header's value is one line, not {value!r}")
    return value.encode("latin-1")


@dataclass(slots=True)
class Client:
    """The sender of the request."""

    ip: str
    """Address of the connection's peer."""
    port: int
    forwarded_ip: str
    """The client's address according to trusted proxies before us; else `ip`."""
    forwarded_port: int


@dataclass(slots=True)
class Request:
    """The client's request. Upstream gets the `method`, `query`, `headers` and `body` that plugins leave."""

    method: str
    scheme: str
    host: str
    """From ``Host``, in lower case, without a port."""
    port: int
    """The port on which the request arrived."""
    raw_path: str
    """The path as received, without the query."""
    path: str
    """The same, normalised as in Kong: percent-encoding, ``.``, ``..`` and ``//``."""
    query: str
    """The query without its ``?``."""
    headers: Headers
    http_version: float
    forwarded_scheme: str
    """Scheme, host, port and path according to trusted proxies before us; else as above."""
    forwarded_host: str
    forwarded_port: int
    forwarded_path: str
    forwarded_prefix: str | None
    id: str
    """The id of this request, 32 hexadecimal digits."""
    started: float
    """When it arrived, in seconds since 1970."""
    body: bytes | None = None
    """The whole body, once a plugin has asked for it (`ReadRequestBody`) or replaced it; ``None`` before."""


@dataclass(slots=True)
class Route:
    """The match of a route."""

    route: Entity
    service: Entity | None
    """``None`` for a route without a service, whose plugins must answer."""
    captures: Mapping[str, str] = field(default_factory=dict)
    """Named groups of the expression that matched the path."""
    unnamed_captures: Sequence[str] = ()
    """All groups in their order, without the whole match."""


@dataclass(slots=True)
class Upstream:
    """The destination of the request, which may be changed until the end of the access phase."""

    scheme: str
    host: str
    """An address, a name, or the name of an upstream of the configuration."""
    port: int
    path: str
    """Path of the request to upstream, without the query."""
    host_header: str | None = None
    """The value of ``Host``; ``None`` keeps the client's (``preserve_host``)."""


@dataclass(slots=True)
class Response:
    """A response on its way to the client: upstream's, a filter's or a plugin's."""

    status: int
    headers: Headers
    source: str = "service"
    """``service``, ``exit`` (a plugin or a filter answered) or ``error`` (the gateway did)."""
    body: bytes = b""
    """The whole body in ``response``, the current part in ``body_filter``. Plugins may replace it."""
    last: bool = False
    """Whether this is the last part. A plugin that sets it ends the body."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The answer of a plugin, instead of upstream's response."""

    status: int
    headers: HeaderList = field(default_factory=list)
    body: bytes = b""


@dataclass(slots=True)
class Context:
    """One request with its response, shared by its plugins: each gets it with the changes of earlier ones."""

    request: Request
    client: Client
    entities: Mapping[str, Sequence[Entity]]
    """The configuration's entities by Kong's collections: ``consumers``, ``keyauth_credentials``, ``acls``, …"""
    log: Log
    subsystem: str = "http"
    """``http``, or ``stream`` for a TCP connection, whose `request` is empty."""
    phase: str = ""
    """The current phase."""
    route: Route | None = None
    """``None`` in ``rewrite``, and if no route fits."""
    upstream: Upstream | None = None
    """``None`` until the route is known."""
    consumer: Entity | None = None
    credential: Entity | None = None
    authenticated_groups: Sequence[str] = ()
    response: Response | None = None
    """``None`` before ``response`` or ``header_filter``."""
    service_response: Response | None = None
    """Upstream's response as received; it has the body only if a plugin has the phase ``response``."""
    shared: MutableMapping[str, Any] = field(default_factory=dict)
    """``kong.ctx.shared``, shared by Lua, plugin servers and filters. Values are those that JSON can hold."""
    state: dict[object, Any] = field(default_factory=dict)
    """State that each kind of plugin keeps for this request (``kong.ctx.plugin``), by key."""
    log_values: dict[str, Any] = field(default_factory=dict)
    """Values of ``kong.log.set_serialize_value``, by dotted key; ``None`` removes a value."""
    node_id: str = ""
    """Id of this gateway."""
    trusts: Callable[[str], bool] = bool
    """Whether an address belongs to a trusted proxy (``KONG_TRUSTED_IPS``)."""
    exit: Exit | None = None
    """Set by a plugin that answers the client, before it returns; later plugins and all filters are skipped."""

"""The Python functions that our Lua library calls. All of them work on the current request, `Runtime.call`."""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import hmac
import ipaddress
import json
import os
import socket
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.kong.context import Context, Exit, Headers
from proxywasm_host.kong.lua import crypto, regex
from proxywasm_host.kong.lua.modules import Modules
from proxywasm_host.kong.lua.shared_dictionaries import SharedDictionaries
from proxywasm_host.kong.lua.values import LuaValue, bytes_as_text, text_as_bytes

if TYPE_CHECKING:
    from proxywasm_host.kong.lua.runtime import Runtime

__all__ = ["FAILED", "Functions"]

MOST = 16 << 20
"""Most bytes of decompressed data."""
FAILED = "\0failed"
"""The first result of a function that failed."""

LEVELS = (
    *(LogLevel.CRITICAL,) * 4,  # stderr, emerg, alert, crit
    *(LogLevel.ERROR, LogLevel.WARN, LogLevel.INFO, LogLevel.INFO, LogLevel.DEBUG),
)
"""Our level for each of nginx's levels 0 to 8; notice is info."""


def _binary_ip(context: Context) -> str | None:
    try:
        return ipaddress.ip_address(context.client.forwarded_ip).packed.decode("latin-1")
    except ValueError:
        return None


def _request_uri(context: Context) -> str:
    request = context.request
    return f"{request.raw_path}?{request.query}" if request.query else request.raw_path


def _service_status(context: Context) -> int | None:
    return context.service_response.status if context.service_response else None


VALUES: dict[str, Callable[[Context], Any]] = {
    "method": lambda context: context.request.method,
    "scheme": lambda context: context.request.scheme,
    "host": lambda context: context.request.host,
    "port": lambda context: context.request.port,
    "raw_path": lambda context: context.request.raw_path,
    "path": lambda context: context.request.path,
    "query": lambda context: context.request.query,
    "request_uri": _request_uri,
    "http_version": lambda context: context.request.http_version,
    "forwarded_scheme": lambda context: context.request.forwarded_scheme,
    "forwarded_host": lambda context: context.request.forwarded_host,
    "forwarded_port_of_request": lambda context: context.request.forwarded_port,
    "forwarded_path": lambda context: context.request.forwarded_path,
    "forwarded_prefix": lambda context: context.request.forwarded_prefix,
    "id": lambda context: context.request.id,
    "started": lambda context: context.request.started,
    "body": lambda context: context.request.body,
    "ip": lambda context: context.client.ip,
    "port_of_client": lambda context: context.client.port,
    "forwarded_ip": lambda context: context.client.forwarded_ip,
    "forwarded_port": lambda context: context.client.forwarded_port,
    "binary_ip": _binary_ip,
    "status": lambda context: context.response.status if context.response else None,
    "source": lambda context: context.response.source if context.response else None,
    "chunk": lambda context: context.response.body if context.response else None,
    "last": lambda context: context.response.last if context.response else None,
    "service_status": _service_status,
    "service_body": lambda context: context.service_response.body if context.service_response else None,
    "upstream_scheme": lambda context: context.upstream.scheme if context.upstream else None,
    "upstream_host": lambda context: context.upstream.host if context.upstream else None,
    "upstream_port": lambda context: context.upstream.port if context.upstream else None,
    "upstream_path": lambda context: context.upstream.path if context.upstream else None,
    "connection": lambda context: str(context.client.port),
    "connection_requests": lambda _context: "1",
    "exited": lambda context: context.exit is not None,
    "has_request": lambda _context: True,
}


def _set_body(context: Context, body: str) -> None:
    context.request.body = body.encode("latin-1")


def _set_on(part: str, name: str, kind: Callable[[Any], Any]) -> Callable[[Context, Any], None]:
    def change(context: Context, value: Any) -> None:
        owner = getattr(context, part)
        if owner is not None:
            setattr(owner, name, kind(value))

    return change


SETTERS: dict[str, Callable[[Context, Any], None]] = {
    "method": _set_on("request", "method", str),
    "query": _set_on("request", "query", str),
    "body": _set_body,
    "status": _set_on("response", "status", int),
    "chunk": _set_on("response", "body", lambda text: text.encode("latin-1")),
    "last": _set_on("response", "last", bool),
    "upstream_scheme": _set_on("upstream", "scheme", str),
    "upstream_host": _set_on("upstream", "host", str),
    "upstream_port": _set_on("upstream", "port", int),
    "upstream_path": _set_on("upstream", "path", str),
    "host_header": _set_on("upstream", "host_header", str),
}


class Functions:
    """The functions of one runtime, by the names of its public methods."""

    def __init__(
        self, runtime: Runtime, modules: Modules, shared: SharedDictionaries, environment: Mapping[str, str]
    ) -> None:
        """`environment` has the variables for `os.getenv`."""
        self._runtime = runtime
        self._modules = modules
        self._numbered: dict[int, Any] = {}
        self._shared = shared
        self._environment = environment
        self._keys = crypto.Keys()
        self._matchers: list[list[ipaddress.IPv4Network | ipaddress.IPv6Network]] = []

    def by_name(self) -> dict[str, Callable[..., Any]]:
        """All functions, by name."""
        found = {
            **{name: getattr(self, name) for name in dir(self) if not name.startswith("_") and name != "by_name"},
            **{f"shared_{name}": self._shared_method(name) for name in SHARED_METHODS},
            "re_search": self._re_search,
            "re_all": self._re_all,
            "digest": crypto.digest,
            "hmac": crypto.keyed_digest,
            "load_key": self._keys.load,
            "sign": self._keys.sign,
            "verify": self._keys.verify,
            "random": lambda size: os.urandom(int(size)),
        }
        return {name: _answering(function) for name, function in found.items()}

    # -- The request ---------------------------------------------------------------------------------------------------

    @property
    def _context(self) -> Context:
        context = self._runtime.call.context
        if context is None:
            raise ValueError("API disabled in the current context: there is no request")
        return context

    def get(self, name: str) -> Any:
        """A value of the request, by a name of `VALUES`; ``None`` outside of a request."""
        context = self._runtime.call.context
        if context is None:
            return None
        value = VALUES.get(name)
        return None if value is None else value(context)

    def set(self, name: str, value: Any) -> None:
        """Change a value of the request, by a name of `SETTERS`."""
        SETTERS[name](self._context, value)

    def _headers(self, message: str) -> Headers:
        context = self._context
        if message == "request":
            return context.request.headers
        if message == "service":
            return context.service_response.headers if context.service_response else Headers([])
        if context.response is None:
            return self._runtime.pending_headers(context)
        return context.response.headers

    def header(self, message: str, name: str) -> str | None:
        """The first value of a header."""
        return self._headers(message).get(name)

    def header_values(self, message: str, name: str) -> LuaValue:
        """All values of a header."""
        return self._runtime.table(self._headers(message).all(name))

    def headers(self, message: str, most: int) -> tuple[LuaValue, str | None]:
        """Headers by name, at most `most` (0: all); several values of a header are a sequence."""
        found: dict[str, list[str]] = {}
        table, truncated = self._runtime.table, None
        for number, (name, value) in enumerate(self._headers(message)):
            if number == most > 0:
                truncated = "truncated"
                break
            found.setdefault(name, []).append(value)
        return table(
            {name: values[0] if len(values) == 1 else table(values) for name, values in found.items()}
        ), truncated

    def header_lines(self) -> str:
        """Headers of the request, as on the wire."""
        return "".join(f"{name}: {value}\r\n" for name, value in self._context.request.headers)

    def set_header(self, message: str, name: str, value: Any) -> None:
        """Replace a header with a value, or with a sequence of values."""
        self._headers(message).set(name, self._values(value))

    def add_header(self, message: str, name: str, value: Any) -> None:
        """Add a value, or a sequence of values."""
        for each in self._values(value):
            self._headers(message).add(name, each)

    def remove_header(self, message: str, name: str) -> None:
        """Remove a header."""
        self._headers(message).remove(name)

    def _values(self, value: Any) -> list[str]:
        if value.__class__ is str:
            return [value]
        values = [each for _, each in value.items()] if self._runtime.lua_type(value) == "table" else [value]
        return [_text(each) for each in values]

    def exit(self, status: int, body: str) -> None:
        """Answer the request, with the headers that plugins have set."""
        context = self._context
        if context.response is not None:
            context.response.status = int(status)
            context.exit = Exit(int(status), list(context.response.headers.pairs), body.encode("latin-1"))
            return
        pending = self._runtime.pending_headers(context)
        context.exit = Exit(int(status), list(pending.pairs), body.encode("latin-1"))
        pending.pairs.clear()

    def captures(self) -> tuple[LuaValue, LuaValue]:
        """The groups that the route's expression matched: by name, and in order."""
        route, table = self._context.route, self._runtime.table
        if route is None:
            return table({}), table([])
        return table(dict(route.captures)), table(list(route.unnamed_captures))

    def set_log_value(self, key: str, value: Any) -> None:
        """Replace the value at `key` in the log."""
        self._context.log_values[bytes_as_text(key)] = self._runtime.values.to_python(value)

    def log_values(self) -> LuaValue:
        """All replaced values of the log, by key; null for a value to remove."""
        return self._runtime.values.to_lua(self._context.log_values)

    # -- Bodies --------------------------------------------------------------------------------------------------------

    def gzip(self, data: str) -> str:
        """The compressed data."""
        return gzip.compress(data.encode("latin-1"), mtime=0).decode("latin-1")

    def gunzip(self, data: str) -> str:
        """The decompressed data, at most `MOST` bytes."""
        inflate = zlib.decompressobj(wbits=31)
        try:
            whole = inflate.decompress(data.encode("latin-1"), MOST)
        except zlib.error:
            raise ValueError("INFLATE: data error") from None
        if inflate.unconsumed_tail:
            raise ValueError(f"INFLATE: more than {MOST} bytes")
        if not inflate.eof:
            raise ValueError("INFLATE: buffer error")
        return whole.decode("latin-1")

    # -- Entities ------------------------------------------------------------------------------------------------------

    def entity_number(self, name: str) -> int | None:
        """A number for the route, service, consumer or credential of the request; each entity has its own."""
        entity = self._entity(name)
        if entity is None:
            return None
        self._numbered[id(entity)] = entity  # kept alive, so that no other object gets its number
        return id(entity)

    def entity_table(self, name: str) -> LuaValue:
        """The same entity, as a table."""
        return self._runtime.values.to_lua(self._entity(name), nulls=False)

    def _entity(self, name: str) -> Any:
        context = self._context
        if name in {"route", "service"}:
            return getattr(context.route, name) if context.route else None
        return getattr(context, name)

    def forget_entities(self) -> None:
        """Release all numbers, after Lua has dropped its tables."""
        self._numbered.clear()

    def authenticate(self, consumer: LuaValue, credential: LuaValue) -> None:
        """Set the consumer and the credential of the request."""
        to_python = self._runtime.values.to_python
        context = self._context
        context.consumer, context.credential = to_python(consumer), to_python(credential)

    def entities(self, collection: str) -> LuaValue:
        """The entities of a collection in the configuration."""
        found = self._runtime.entities.get(collection, ())
        return self._runtime.table([self._runtime.values.to_lua(each, nulls=False) for each in found])

    def generation(self) -> int:
        """A number that changes when the configuration does."""
        return id(self._runtime.entities)

    # -- Time, log, node -----------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The time, in seconds since 1970."""
        return time.time()

    def parse_http_time(self, text: Any) -> int | None:
        """The time of an HTTP date, in seconds since 1970."""
        try:
            return int(parsedate_to_datetime(str(text)).timestamp())
        except (ValueError, TypeError, IndexError):
            return None

    def log(self, level: int, message: str) -> None:
        """Log a line; `level` is nginx's."""
        self._runtime.log(LEVELS[int(level)] if 0 <= level < len(LEVELS) else LogLevel.INFO, bytes_as_text(message))

    def pid(self) -> int:
        """The id of this process."""
        return os.getpid()

    def hostname(self) -> str:
        """The name of this machine."""
        return text_as_bytes(socket.gethostname())

    def node_id(self) -> str:
        """The node's id, which is constant while this process runs."""
        return NODE_ID

    def uuid(self) -> str:
        """A random UUID."""
        return str(uuid.uuid4())

    def memory(self) -> int:
        """Bytes in use by the plugins of this thread."""
        return self._runtime.memory

    def getenv(self, name: str) -> str | None:
        """An environment variable that plugins may read."""
        value = self._environment.get(bytes_as_text(name))
        return None if value is None else text_as_bytes(value)

    def start_timer(self, seconds: float, number: int) -> None:
        """Run a timer of Lua, given by its number, after `seconds`."""
        self._runtime.start_timer(seconds, int(number))

    def find_module(self, name: str) -> tuple[Any, ...]:
        """A module's source: see `Modules.find`."""
        return self._modules.find(name)

    def append_to_file(self, path: str, data: str) -> bool:
        """Append to a file, if that is allowed. Returns whether it did."""
        return self._runtime.append_to_file(Path(bytes_as_text(path)), data.encode("latin-1"))

    def has_upstream(self, name: str) -> bool:
        """Whether the configuration has an upstream of that name."""
        wanted = bytes_as_text(name)
        return any(upstream.get("name") == wanted for upstream in self._runtime.entities.get("upstreams", ()))

    def enable_buffering(self) -> None:
        """Request the whole response."""
        self._context.state["buffering"] = True

    def is_buffered(self) -> bool:
        """Whether the whole body of upstream's response is available."""
        context = self._context
        return context.phase == "response" or bool(context.service_response and context.service_response.body)

    # -- Text ----------------------------------------------------------------------------------------------------------

    def json_decode(self, text: str, with_arrays: bool) -> tuple[Any, ...]:
        """The value, or ``None`` and the reason. With `with_arrays`, also all arrays in it."""
        arrays: list[LuaValue] = []
        try:
            value = json.loads(text.encode("latin-1").decode("utf-8", "surrogateescape"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            return None, f"Expected value but found invalid token: {error}"
        table = self._decoded(value, arrays)
        if with_arrays:
            return table, None, self._runtime.table(arrays)
        return (table,)

    def _decoded(self, value: Any, arrays: list[LuaValue]) -> LuaValue:
        if isinstance(value, str):
            return text_as_bytes(value)
        if isinstance(value, list):
            table = self._runtime.table([self._decoded(each, arrays) for each in value])
            arrays.append(table)
            return table
        if isinstance(value, dict):
            return self._runtime.table({text_as_bytes(key): self._decoded(each, arrays) for key, each in value.items()})
        if value is None:
            return self._runtime.null
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def encode_base64(self, text: Any, no_padding: bool = False) -> str:
        """Text in base64 (RFC 4648)."""
        encoded = base64.b64encode(_text(text).encode("latin-1")).decode()
        return encoded.rstrip("=") if no_padding else encoded

    def decode_base64(self, text: str) -> bytes | None:
        """The data of base64; ``None`` if the text is invalid."""
        try:
            return base64.b64decode(text.encode("latin-1") + b"=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            return None

    def md5(self, text: str) -> str:
        """MD5, in hexadecimal digits."""
        return hashlib.md5(text.encode("latin-1"), usedforsecurity=False).hexdigest()

    def md5_bin(self, text: str) -> bytes:
        """MD5, as bytes."""
        return hashlib.md5(text.encode("latin-1"), usedforsecurity=False).digest()

    def sha1_bin(self, text: str) -> bytes:
        """SHA-1, as bytes."""
        return hashlib.sha1(text.encode("latin-1"), usedforsecurity=False).digest()

    def hmac_sha1(self, key: str, text: str) -> bytes:
        """HMAC of SHA-1, as bytes."""
        return hmac.digest(key.encode("latin-1"), text.encode("latin-1"), "sha1")

    def crc32_short(self, text: str) -> int:
        """The CRC-32 of text."""
        return zlib.crc32(text.encode("latin-1"))

    crc32_long = crc32_short

    def quote_sql_str(self, text: str) -> str:
        """Text, quoted for MySQL."""
        return "'" + "".join(SQL.get(character, character) for character in text) + "'"

    def ip_matcher(self, networks: LuaValue) -> tuple[int | None, str | None]:
        """A number for a list of addresses and networks; or ``None`` and the reason."""
        try:
            found = [ipaddress.ip_network(network, strict=False) for _, network in networks.items()]
        except ValueError as error:
            return None, f"invalid ip address: {error}"
        self._matchers.append(found)
        return len(self._matchers) - 1, None

    def ip_matches(self, number: int, address: str, binary: bool) -> tuple[bool | None, str | None]:
        """Whether an address is in one of the networks that a number stands for."""
        try:
            parsed = ipaddress.ip_address(address.encode("latin-1") if binary else address)
        except ValueError:
            return None, "invalid ip address"
        return any(parsed in network for network in self._matchers[int(number)]), None

    def expanded_ipv6(self, address: str) -> str:
        """An IPv6 address with all its digits."""
        return ipaddress.IPv6Address(address).exploded

    def ip_version(self, address: Any) -> int | None:
        """4 or 6; ``None`` for text that is not an address."""
        try:
            return ipaddress.ip_address(address).version if isinstance(address, str) else None
        except ValueError:
            return None

    # -- Shared dictionaries, regular expressions ----------------------------------------------------------------------

    def has_shared(self, name: str) -> bool:
        """Whether a dictionary of that name exists."""
        return name in self._shared

    def shared_get_keys(self, name: str, most: int = 1024) -> LuaValue:
        """The keys of a dictionary."""
        return self._runtime.table(self._shared[name].keys(int(most)))

    def _shared_method(self, method: str) -> Callable[..., Any]:
        def call(name: str, *arguments: Any) -> Any:
            key, *rest = arguments or ("",)
            return getattr(self._shared[name], method)(*([_text(key)] if arguments else []), *rest)

        return call

    def _re_search(self, subject: str, pattern: str, options: str, position: int) -> tuple[Any, Any]:
        found, message = regex.search(subject, pattern, options, int(position))
        return (self._match(found) if found else None), message

    def _re_all(self, subject: str, pattern: str, options: str, limit: int) -> tuple[Any, Any]:
        found, message = regex.all_matches(subject, pattern, options, int(limit))
        return (None if found is None else self._runtime.table([self._match(each) for each in found])), message

    def _match(self, found: Mapping[str, Any]) -> LuaValue:
        table = self._runtime.table
        return table({key: table(value) for key, value in found.items()})


SHARED_METHODS = (
    *("get", "get_stale", "set", "safe_set", "add", "safe_add", "replace", "incr", "delete", "ttl", "expire"),
    *("flush_all", "flush_expired", "capacity", "free_space", "lpush", "rpush", "lpop", "rpop", "llen"),
)
NODE_ID = str(uuid.uuid4())
SQL = {
    "\0": "\\0",
    "\b": "\\b",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\x1a": "\\Z",
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
}


def _answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function, to return `FAILED` and the reason instead of raising.

    lupa would pass the exception to Lua; its traceback holds tables of a coroutine that may end first.
    """

    def answer(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001 - it is reported to the plugin
            return FAILED, text_as_bytes(str(error) or type(error).__name__)

    return answer


def _text(value: Any) -> str:
    """Text of a value, as by Lua's `tostring`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.14g}"
    return str(value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a value of JSON")

"""Kong's environment variables (``KONG_…``, the settings of ``kong.conf``) that have an effect here.

Any other setting is logged as a warning.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from proxywasm_host.configuration.nginx import OF_CALLOUTS, OF_WASM, PROXY_WASM, calls_of
from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.servers.process import ServerSettings, servers_of
from proxywasm_host.serve.config import ShmKv
from proxywasm_host.serve.model import Seconds, Size

__all__ = ["Environment"]

logger = logging.getLogger("proxywasm_host.kong")
WITHOUT_MEANING = (
    *(
        "KONG_DATABASE",
        "KONG_DECLARATIVE_CONFIG",
        "KONG_ROUTER_FLAVOR",
        "KONG_WASM",
        "KONG_VERSION",
    ),
    *("KONG_PROXY_ACCESS_LOG", "KONG_PROXY_ERROR_LOG", "KONG_ADMIN_ACCESS_LOG", "KONG_ADMIN_ERROR_LOG"),
    *("KONG_ADMIN_LISTEN", "KONG_NGINX_DAEMON", "KONG_LOG_LEVEL", "KONG_PROXY_LISTEN", "KONG_NGINX_WORKER_PROCESSES"),
)
"""Settings that are fixed here, or for which ``proxywasm serve`` has options."""
LUA_MEMORY, LUA_TIME, LUA_WRITABLE = "KONG_LUA_MEMORY", "KONG_LUA_HANDLER_TIME", "KONG_LUA_WRITABLE"
"""Settings that Kong does not have: it has no such limits, and its plugins may write any file that nginx may."""
STREAM_LISTEN = "KONG_STREAM_LISTEN"
VARIABLES = "KONG_NGINX_MAIN_ENV"
ISOLATION = "KONG_NGINX_HTTP_PROXY_WASM_ISOLATION"
ZONE = "KONG_NGINX_WASM_SHM_KV"
EVERY_ZONE = ("KONG_NGINX_WASM_MAIN_SHM_KV", ZONE)
"""The zone ``*``, which Kong always has."""
MAIN_ZONE = 12 << 20
OF_NGINX = {
    **{f"KONG_NGINX_WASM_{name.upper()}": why for name, why in OF_WASM.items()},
    **{f"KONG_NGINX_HTTP_{name.upper()}": why for name, why in PROXY_WASM.items()},
}
"""Directives of nginx for filters that have no effect here, and why."""
CALLOUTS = {
    **{f"KONG_NGINX_WASM_{name.upper()}": name for name in OF_CALLOUTS},
    **{f"KONG_NGINX_HTTP_WASM_{name.upper()}": name for name in OF_CALLOUTS if name.startswith("socket")},
}
"""Directives about filters' calls to addresses."""


@dataclass(frozen=True)
class Environment:
    """The settings of Kong."""

    prefix: str = "/usr/local/kong"
    """``KONG_PREFIX``: where the sockets of plugin servers are."""
    filters_path: Path | None = None
    """``KONG_WASM_FILTERS_PATH``: the folder of filters."""
    trusted_ips: tuple[str, ...] = ()
    """``KONG_TRUSTED_IPS``."""
    real_ip_header: str = "x-real-ip"
    """``KONG_REAL_IP_HEADER``."""
    lua_folders: tuple[Path, ...] = ()
    """``KONG_LUA_PACKAGE_PATH`` as folders: the part before ``?.lua`` or ``?/init.lua``."""
    lua_memory: int | None = 256 << 20
    """``KONG_LUA_MEMORY``: bytes for all Lua plugins of a thread; ``None`` without a limit (``off``)."""
    lua_handler_time: float | None = 1.0
    """``KONG_LUA_HANDLER_TIME``: seconds of processor time for a phase of a plugin; ``None`` without a limit."""
    lua_writable: tuple[Path, ...] = ()
    """``KONG_LUA_WRITABLE``: files, or folders of files, that plugins may append to."""
    lua_environment: Mapping[str, str] = field(default_factory=dict)
    """``KONG_NGINX_MAIN_ENV``: the variables that ``os.getenv`` returns."""
    servers: tuple[ServerSettings, ...] = ()
    """``KONG_PLUGINSERVER_…``."""
    wasm_filters: frozenset[str] | None = None
    """``KONG_WASM_FILTERS``: the filters that may be used; ``None`` for all in the folder."""
    isolation: Literal["none", "stream", "filter"] = "none"
    """``KONG_NGINX_HTTP_PROXY_WASM_ISOLATION``."""
    shm_kv: Mapping[str, ShmKv] = field(default_factory=dict)
    """``KONG_NGINX_WASM_SHM_KV_…``: zones of shared memory."""
    calls: Mapping[str, Any] = field(default_factory=lambda: calls_of({}))
    """``KONG_NGINX_WASM_SOCKET_…``, ``…_TLS_…``: how filters call addresses, in the form of ``allow_any_host``."""

    stream_listen: tuple[tuple[str, int], ...] = ()
    """``KONG_STREAM_LISTEN``: addresses for TCP connections."""

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """Read the settings from environment variables. Raises: ConfigError."""
        prefix = variables.get("KONG_PREFIX", cls.prefix)
        servers = tuple(servers_of(variables, prefix))
        ours = {
            *("KONG_PREFIX", "KONG_WASM_FILTERS_PATH", "KONG_TRUSTED_IPS", "KONG_REAL_IP_HEADER"),
            *("KONG_LUA_PACKAGE_PATH", "KONG_PLUGINSERVER_NAMES", "KONG_PLUGINS", "KONG_WASM_FILTERS", ISOLATION),
            *(STREAM_LISTEN, *EVERY_ZONE, *CALLOUTS, LUA_MEMORY, LUA_TIME, LUA_WRITABLE, VARIABLES),
        }
        for name in variables:
            known = name in ours or name in WITHOUT_MEANING or name.startswith(("KONG_PLUGINSERVER_", f"{ZONE}_"))
            if name.startswith("KONG_") and not known:
                why = next((f": {why}" for prefix, why in OF_NGINX.items() if name.startswith(prefix)), "")
                logger.warning("%s has no effect here%s", name, why)
        folder = variables.get("KONG_WASM_FILTERS_PATH")
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"KONG_WASM_FILTERS_PATH: {folder!r} is not a folder")
        return cls(
            prefix,
            None if folder is None else Path(folder).absolute(),
            tuple(each.strip() for each in variables.get("KONG_TRUSTED_IPS", "").split(",") if each.strip()),
            variables.get("KONG_REAL_IP_HEADER", cls.real_ip_header).lower().replace("_", "-"),
            tuple(_folders(variables.get("KONG_LUA_PACKAGE_PATH", ""))),
            _limit(variables, LUA_MEMORY, cls.lua_memory, _SIZE, "256m"),
            _limit(variables, LUA_TIME, cls.lua_handler_time, _SECONDS, "1s"),
            tuple(Path(each.strip()).absolute() for each in variables.get(LUA_WRITABLE, "").split(",") if each.strip()),
            _environment(variables),
            servers,
            _names(variables.get("KONG_WASM_FILTERS", "bundled,user")),
            _isolation(variables.get(ISOLATION, "none")),
            _zones(variables),
            _calls(variables),
            _listeners(variables.get(STREAM_LISTEN, "off")),
        )


_SIZE, _SECONDS = TypeAdapter(Size), TypeAdapter(Seconds)


def _limit(variables: Mapping[str, str], name: str, otherwise: Any, kind: TypeAdapter[Any], example: str) -> Any:
    """A limit; ``None`` for ``off``."""
    given = variables.get(name)
    if given is None or given == "off":
        return otherwise if given is None else None
    try:
        return kind.validate_python(given.removesuffix("s") if kind is _SECONDS else given)
    except ValidationError:
        raise ConfigError(f"{name}: {given!r} is not a limit: write it as {example}, or off") from None


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables in the form of nginx's directive ``env``: ``NAME`` or ``NAME=value``."""
    found = {}
    for each in re.split(r"[;\s]+", variables.get(VARIABLES, "")):
        name, equals, value = each.partition("=")
        if equals or name in variables:
            found[name] = value if equals else variables[name]
    return found


def _names(given: str) -> frozenset[str] | None:
    names = frozenset(name.strip() for name in given.split(","))
    return None if "user" in names else names - {"bundled", "off"}


def _isolation(given: str) -> Any:
    if given not in ("none", "stream", "filter"):
        raise ConfigError(f"{ISOLATION} must be none, stream or filter, not {given!r}")
    return given


def _listeners(given: str) -> tuple[tuple[str, int], ...]:
    """Addresses, each with options of nginx; options that change the protocol are refused."""
    found = []
    for each in [] if given.strip() in ("", "off") else given.split(","):
        address, *options = each.split() or [""]
        host, _, port = address.rpartition(":")
        try:
            ip_address(host.removeprefix("[").removesuffix("]"))
            right = 0 <= int(port) < 1 << 16
        except ValueError:
            right = False
        if not right:
            raise ConfigError(f"{STREAM_LISTEN}: {each.strip()!r} is not a listener: write it as 0.0.0.0:9000")
        for option in options:
            if option != "reuseport" and not option.startswith(("backlog=", "so_keepalive=")):
                raise ConfigError(f"{STREAM_LISTEN}: {option!r} of {address} is not supported: only TCP is served")
        found.append((host.removeprefix("[").removesuffix("]"), int(port)))
    return tuple(found)


def _calls(variables: Mapping[str, str]) -> dict[str, Any]:
    said = {variable: name for variable, name in CALLOUTS.items() if variable in variables}
    for variable, name in said.items():
        try:
            calls_of({name: variables[variable]})
        except ConfigError as error:  # noqa: PERF203 - there are few
            raise ConfigError(f"{variable}{str(error).removeprefix(name)}") from None
    return calls_of({name: variables[variable] for variable, name in said.items()})


def _zones(variables: Mapping[str, str]) -> dict[str, ShmKv]:
    found: dict[str, ShmKv] = {}
    for name, given in variables.items():
        if name in EVERY_ZONE or name.startswith(f"{ZONE}_"):
            said = re.fullmatch(r"(?P<size>\w+)(?:\s+eviction=(?P<eviction>\w+))?", given)
            try:
                zone = ShmKv.model_validate(said.groupdict("slru")) if said else None
            except ValidationError as error:
                raise ConfigError(f"{name}: {error.errors()[0]['msg']}") from None
            if zone is None:
                raise ConfigError(f"{name}: {given!r} is not a zone: write it as 12m, or 12m eviction=lru")
            found["*" if name in EVERY_ZONE else name.removeprefix(f"{ZONE}_").lower()] = zone
    return {"*": ShmKv(size=MAIN_ZONE), **found} if found else {}


def _folders(path: str) -> list[Path]:
    found: dict[Path, None] = {}
    for pattern in path.split(";"):
        before = pattern.partition("?")[0]
        if before and pattern != before:
            found.setdefault(Path(before).absolute())
    return list(found)

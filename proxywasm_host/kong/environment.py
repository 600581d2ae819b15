"""What Kong is told by its environment (``KONG_…``, the settings of ``kong.conf``), as far as it matters here.

A setting that is not known here is told in the log, once, so that nobody takes it for done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.servers.process import ServerSettings, servers_of

__all__ = ["Environment"]

logger = logging.getLogger("proxywasm_host.kong")
WITHOUT_MEANING = (
    *(
        "KONG_DATABASE",
        "KONG_DECLARATIVE_CONFIG",
        "KONG_ROUTER_FLAVOR",
        "KONG_WASM",
        "KONG_WASM_FILTERS",
        "KONG_VERSION",
    ),
    *("KONG_PROXY_ACCESS_LOG", "KONG_PROXY_ERROR_LOG", "KONG_ADMIN_ACCESS_LOG", "KONG_ADMIN_ERROR_LOG"),
    *("KONG_ADMIN_LISTEN", "KONG_NGINX_DAEMON", "KONG_LOG_LEVEL", "KONG_PROXY_LISTEN", "KONG_NGINX_WORKER_PROCESSES"),
)
"""Settings that are what they are here, or that ``proxywasm serve`` has options for."""


@dataclass(frozen=True)
class Environment:
    """Settings of Kong."""

    prefix: str = "/usr/local/kong"
    """``KONG_PREFIX``: where the sockets of plugin servers are."""
    filters_path: Path | None = None
    """``KONG_WASM_FILTERS_PATH``: the folder of filters."""
    trusted_ips: tuple[str, ...] = ()
    """``KONG_TRUSTED_IPS``."""
    real_ip_header: str = "x-real-ip"
    """``KONG_REAL_IP_HEADER``."""
    lua_folders: tuple[Path, ...] = ()
    """``KONG_LUA_PACKAGE_PATH``, as folders: what is before ``?.lua`` or ``?/init.lua``."""
    servers: tuple[ServerSettings, ...] = ()
    """``KONG_PLUGINSERVER_…``."""

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """The settings among environment variables. Raises: ConfigError."""
        prefix = variables.get("KONG_PREFIX", cls.prefix)
        servers = tuple(servers_of(variables, prefix))
        ours = {
            *("KONG_PREFIX", "KONG_WASM_FILTERS_PATH", "KONG_TRUSTED_IPS", "KONG_REAL_IP_HEADER"),
            *("KONG_LUA_PACKAGE_PATH", "KONG_PLUGINSERVER_NAMES", "KONG_PLUGINS"),
        }
        for name in variables:
            known = name in ours or name in WITHOUT_MEANING or name.startswith("KONG_PLUGINSERVER_")
            if name.startswith("KONG_") and not known:
                logger.warning("%s has no meaning here", name)
        folder = variables.get("KONG_WASM_FILTERS_PATH")
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"KONG_WASM_FILTERS_PATH: {folder!r} is not a folder")
        return cls(
            prefix,
            None if folder is None else Path(folder).absolute(),
            tuple(each.strip() for each in variables.get("KONG_TRUSTED_IPS", "").split(",") if each.strip()),
            variables.get("KONG_REAL_IP_HEADER", cls.real_ip_header).lower().replace("_", "-"),
            tuple(_folders(variables.get("KONG_LUA_PACKAGE_PATH", ""))),
            servers,
        )


def _folders(path: str) -> list[Path]:
    found: dict[Path, None] = {}
    for pattern in path.split(";"):
        before = pattern.partition("?")[0]
        if before and pattern != before:
            found.setdefault(Path(before).absolute())
    return list(found)

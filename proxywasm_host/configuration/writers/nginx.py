"""Writes a configuration of nginx with ngx_wasm_module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from proxywasm_host.configuration.node import dotted
from proxywasm_host.configuration.writers.base import INLINE, Part, Writer, as_text, module
from proxywasm_host.fetch.reference import is_remote


class NginxWriter(Writer):
    """A configuration of nginx with ngx_wasm_module."""

    def write(self) -> str:
        """The blocks ``wasm`` and ``http`` with a server for each set of hosts."""
        modules: dict[str, tuple[str, Any]] = {}
        filters = self._filters()
        chain = self._isolation([each.value for each in filters], "filters")
        chain += [self._filter(each, modules) for each in filters]
        upstreams = self._upstreams()
        lines = ["events {}", "", "wasm {"]
        routes: list[str] = []
        hosts: dict[tuple[str, ...], list[str]] = {}
        for each in self._routes(upstreams):
            names = tuple(each.take("hosts", ()))
            hosts.setdefault(names, []).extend(self._location(each, chain, upstreams, modules))
        host, port = self._address("listen", "127.0.0.1:8080")
        listen = f"{f'[{host}]' if ':' in host else host}:{port}"
        tls = Part(self._own.take("tls"), ("tls",), self)
        secure = bool(tls.value)
        certificate = [
            f"        {name} {tls.take(key)};"
            for key, name in (("certificate", "ssl_certificate"), ("key", "ssl_certificate_key"))
            if tls.value.get(key)
        ]
        tls.rest()
        for names, locations in hosts.items():
            routes += ["    server {", f"        listen {listen}{' ssl' if secure else ''};", *certificate]
            routes += [f"        server_name {' '.join(names)};"] if names else []
            routes += [*locations, "    }"]
        if not hosts:
            routes = [f"    {each}" for each in chain]
        for name, (file, vm_configuration) in modules.items():
            more = "" if vm_configuration is None else " " + _quoted(vm_configuration)
            lines.append(f"    module {name} {_quoted(file)}{more};")
        for name, size in self._own.take("shm_kv", {}).items():
            eviction = f" eviction={size['eviction']}" if isinstance(size, dict) and "eviction" in size else ""
            lines.append(f"    shm_kv {name} {size['size'] if isinstance(size, dict) else size}{eviction};")
        lines += self._calls()
        lines += [f"    shm_queue {name} {size};" for name, size in self._own.take("shm_queue", {}).items()]
        lines += ["}", "", "http {"]
        for name, each in upstreams.items():
            lines += self._upstream(name, each)
        if self._own.take("profile", "wasmx") != "wasmx":
            self.cannot.append("profile")
        self._own.rest()
        return "\n".join([*lines, *routes, "}", ""])

    def _calls(self) -> list[str]:
        """The directives for filters' calls of addresses."""
        said = self._own.take("allow_any_host")
        if not isinstance(said, dict):
            return []
        given = Part(said, ("allow_any_host",), self)
        tls = Part(given.take("tls", {}), ("allow_any_host", "tls"), self)
        values = {
            "socket_connect_timeout": given.take("connect_timeout"),
            "socket_read_timeout": given.take("timeout"),
            "tls_trusted_certificate": tls.take("ca"),
            "tls_verify_cert": {True: "on", False: "off", None: None}[tls.take("verify")],
        }
        tls.rest()
        given.rest()
        return [
            f"    {name} {f'{value * 1000:.0f}ms' if isinstance(value, float) else _quoted(value)};"
            for name, value in values.items()
            if value is not None
        ]

    def _isolation(self, filters: list[dict[str, Any]], path: str) -> list[str]:
        """The directive for the filters of one level, which share one isolation in nginx."""
        kinds = {each.get("isolation", "none") for each in filters}
        if len(kinds) > 1:
            self.cannot.append(f"{path}: filters of one level have the same isolation there")
        return [f"proxy_wasm_isolation {kind};" for kind in kinds if len(kinds) == 1 and kind != "none"]

    def _filter(self, given: Part, modules: dict[str, tuple[str, Any]]) -> str:
        given.take("isolation")
        file = module(given)
        if is_remote(file) or file.startswith(INLINE):
            self.cannot.append(f"{dotted(given.path)}.file: modules are files there")
        name = re.sub(r"\W+", "_", given.take("name") or file.rpartition("/")[2].removesuffix(".wasm"))
        known = (file, given.take("vm_configuration"))
        while modules.setdefault(name, known) != known:
            name += "_"
        configuration = given.take("configuration")
        given.rest()
        return f"proxy_wasm {name}{'' if configuration in (None, '') else ' ' + _quoted(as_text(configuration))};"

    def _location(
        self, given: Part, chain: list[str], upstreams: Mapping[str, Part], modules: dict[str, tuple[str, Any]]
    ) -> list[str]:
        path, prefix, regex = (given.take(key) for key in ("path", "prefix", "regex"))
        where = f"= {path}" if path else f"~ ^{regex}$" if regex else prefix or "/"
        filters = given.take("filters", [])
        own = self._isolation([each for each in filters if isinstance(each, dict)], dotted((*given.path, "filters")))
        own += [
            self._filter(Part(each, (*given.path, "filters", at), self, "file"), modules)
            for at, each in enumerate(filters)
        ]
        name = given.take("upstream")
        upstream = upstreams.get(name or "")
        scheme = (
            "https"
            if upstream is not None and "https:" in str(upstream.value.get("url") or upstream.value.get("servers"))
            else "http"
        )
        rewrite = given.take("prefix_rewrite") or ""
        host = given.take("host_rewrite")
        body = [*chain, *own]
        if host not in (None, name):
            body.append(f"proxy_set_header Host {host};")
        elif host is None and not (upstream is not None and upstream.value.get("rewrite_host")):
            body.append("proxy_set_header Host $http_host;")
        if name:
            body.append(f"proxy_pass {scheme}://{name}{rewrite};")
        given.take("name")
        given.take("virtual_host")
        given.rest()
        return [f"        location {where} {{", *(f"            {each}" for each in body), "        }"]

    def _upstream(self, name: str, given: Part) -> list[str]:
        url = given.take("url")
        servers = [{"url": url}] if url else given.take("servers", [])
        lines = [f"    upstream {name} {{"]
        if given.take("balance") == "least_requests":
            lines.append("        least_conn;")
        for each in servers:
            each = {"url": each} if isinstance(each, str) else each  # noqa: PLW2901
            weight = f" weight={each['weight']}" if each.get("weight", 1) != 1 else ""
            lines.append(f"        server {urlsplit(each['url']).netloc}{weight};")
        given.take("rewrite_host")
        given.rest()
        return [*lines, "    }"]


def _quoted(text: Any) -> str:
    """An argument of a directive, in quotes if it needs them."""
    shown: str = text.decode("utf-8", "replace") if isinstance(text, bytes) else as_text(text)
    if re.fullmatch(r"[\w./:@-]+", shown):
        return shown
    return "'" + shown.replace("\\", "\\\\").replace("'", "\\'") + "'"

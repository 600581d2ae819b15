"""Writes the own form as others have it, and lists what cannot be said there."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from proxywasm_host.configuration.node import Key, dotted
from proxywasm_host.fetch.reference import is_remote, local_path

__all__ = ["WRITERS", "Writer"]

TYPE = "type.googleapis.com/"
ACTION = {
    "upstream": "cluster",
    "cluster_header": "cluster_header",
    "prefix_rewrite": "prefix_rewrite",
    "host_rewrite": "host_rewrite_literal",
}
RELOAD = {"fail_reload": "FAIL_RELOAD", "fail_open": "FAIL_OPEN"}


class Part:
    """A mapping of the own form, of which a writer takes what it can say."""

    def __init__(self, value: Any, path: Key, writer: Writer, short: str = "") -> None:
        self.value: dict[str, Any] = {short: value} if short and isinstance(value, str) else dict(value or {})
        self.path = path
        self._writer = writer

    def take(self, key: str, default: Any = None) -> Any:
        """What it has under a key, which is said then."""
        return self.value.pop(key, default)

    def rest(self) -> None:
        """What nobody has taken cannot be said."""
        for key in self.value:
            self._writer.cannot.append(dotted((*self.path, key)))
        self.value = {}


class Writer:
    """Base of the writers. `cannot` are the paths of what cannot be said."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self.cannot: list[str] = []
        self._own = Part(own, (), self)

    def write(self) -> str:
        """The text of the other form."""
        raise NotImplementedError

    def _filters(self) -> list[Part]:
        return [Part(each, ("filters", at), self, "file") for at, each in enumerate(self._own.take("filters", []))]

    def _upstreams(self) -> dict[str, Part]:
        if (single := self._own.take("upstream")) is not None:
            return {"upstream": Part(single, ("upstream",), self, "url")}
        given = self._own.take("upstreams", {})
        return {name: Part(each, ("upstreams", name), self, "url") for name, each in given.items()}

    def _routes(self, upstreams: Mapping[str, Part]) -> list[Part]:
        given = self._own.take("routes", [])
        if not given and upstreams:
            return [Part({"upstream": next(iter(upstreams))}, ("routes", 0), self)]
        return [Part(each, ("routes", at), self) for at, each in enumerate(given)]

    def _address(self, name: str, default: str) -> tuple[str, int]:
        host, _, port = str(self._own.take(name, default)).rpartition(":")
        return host.strip("[]") or "127.0.0.1", int(port)


def module(given: Part) -> str:
    """Where its module is: a path, or a URL."""
    file = str(given.take("file", ""))
    return file if is_remote(file) else local_path(file)


def as_text(value: Any) -> Any:
    """A configuration as the filter gets it: text or bytes."""
    return value if isinstance(value, (str, bytes)) else json.dumps(value, ensure_ascii=False)


def as_value(value: Any) -> Any:
    """A configuration as a mapping; ``None`` if it is none."""
    try:
        found = json.loads(value) if isinstance(value, (str, bytes)) else value
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def as_any(value: Any) -> dict[str, Any]:
    """A configuration as an ``Any``."""
    text = as_text(value)
    if isinstance(text, bytes):
        return {"@type": f"{TYPE}google.protobuf.BytesValue", "value": base64.b64encode(text).decode()}
    return {"@type": f"{TYPE}google.protobuf.StringValue", "value": text}


def to_yaml(*documents: Any) -> str:
    """Documents in YAML, in the order of their keys."""
    return str(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120))


class OwnWriter(Writer):
    """The form of ``proxywasm serve``."""

    def write(self) -> str:
        return to_yaml(plain(self._own.value))


def plain(value: Any) -> Any:
    """Values that YAML has: bytes that are no text are left to `as_any`'s readers as base64."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


class EnvoyWriter(Writer):
    """A bootstrap of Envoy."""

    def write(self) -> str:
        own = self._own
        upstreams = self._upstreams()
        filters = [self._filter(each) for each in self._filters()]
        manager: dict[str, Any] = {
            "@type": f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "ingress",
            "server_header_transformation": "PASS_THROUGH",
        }
        forwarded = Part(own.take("forwarded"), ("forwarded",), self)
        manager["use_remote_address"] = forwarded.take("use_remote_address", True)
        for key in ("xff_num_trusted_hops", "generate_request_id"):
            if (said := forwarded.take(key)) is not None:
                manager[key] = said
        forwarded.rest()
        if (seconds := own.take("stream_idle_timeout")) is not None:
            manager["stream_idle_timeout"] = f"{seconds:g}s"
        hosts: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for each in self._routes(upstreams):
            hosts.setdefault(tuple(each.take("hosts", ())), []).append(self._route(each))
        manager["route_config"] = {
            "name": "routes",
            "virtual_hosts": [
                {"name": ", ".join(names) or "all", "domains": [*names] or ["*"], "routes": routes}
                for names, routes in hosts.items()
            ],
        }
        router = {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.router.v3.Router"},
        }
        manager["http_filters"] = [*filters, router]
        chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
        tls = Part(own.take("tls"), ("tls",), self)
        if tls.value:
            chain["transport_socket"] = _socket("Downstream", _certificate(tls), client_ca=tls.take("client_ca"))
            tls.rest()
        listener = {
            "name": "main",
            "address": _address(*self._address("listen", "127.0.0.1:8080")),
            "filter_chains": [chain],
        }
        clusters = [self._cluster(name, each) for name, each in upstreams.items()]
        for name, each in own.take("clusters", {}).items():
            if name not in upstreams:
                clusters.append(self._cluster(name, Part(each, ("clusters", name), self, "url")))
        made: dict[str, Any] = {"static_resources": {"listeners": [listener], "clusters": clusters}}
        if own.value.get("admin") is not None:
            made["admin"] = {"address": _address(*self._address("admin", ":0"))}
        if own.take("profile", "envoy") != "envoy":
            self.cannot.append("profile")
        own.rest()
        return to_yaml(made)

    def _filter(self, given: Part) -> dict[str, Any]:
        file, sha256 = module(given), given.take("sha256", "")
        name = given.take("name") or file.rpartition("/")[2].removesuffix(".wasm")
        policy = given.take("failure_policy", "fail_reload")
        plugin: dict[str, Any] = {"name": name, "failure_policy": RELOAD.get(policy, "FAIL_CLOSED")}
        if root_id := given.take("root_id"):
            plugin["root_id"] = root_id
        if policy == "fail_reload" and (interval := given.take("reload_interval", 0)):
            plugin["reload_config"] = {"backoff": {"base_interval": f"{interval:g}s"}}
        if (configuration := given.take("configuration")) is not None:
            plugin["configuration"] = as_any(configuration)
        vm: dict[str, Any] = {"runtime": "envoy.wasm.runtime.v8"}
        if vm_id := given.take("vm_id"):
            vm["vm_id"] = vm_id
        if file.startswith(("http://", "https://")):
            vm["code"] = {
                "remote": {
                    "http_uri": {"uri": file, "cluster": urlsplit(file).hostname, "timeout": "60s"},
                    "sha256": sha256,
                }
            }
            if not sha256:
                self.cannot.append(f"{dotted(given.path)}.file: Envoy demands its sha256")
        else:
            if is_remote(file):
                self.cannot.append(f"{dotted(given.path)}.file: Envoy knows no images")
            vm["code"] = {"local": {"filename": file}}
        if (configuration := given.take("vm_configuration")) is not None:
            vm["configuration"] = as_any(configuration)
        if environment := given.take("environment"):
            vm["environment_variables"] = {"key_values": environment}
        plugin["vm_config"] = vm
        if (allowed := given.take("capabilities")) is not None:
            plugin["capability_restriction_config"] = {"allowed_capabilities": {name: {} for name in allowed}}
        if given.take("allow_on_headers_stop_iteration"):
            plugin["allow_on_headers_stop_iteration"] = True
        given.rest()
        return {
            "name": "envoy.filters.http.wasm",
            "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.wasm.v3.Wasm", "config": plugin},
        }

    def _route(self, given: Part) -> dict[str, Any]:
        path, prefix, regex = (given.take(key) for key in ("path", "prefix", "regex"))
        match: dict[str, Any] = (
            {"path": path} if path else {"safe_regex": {"regex": regex}} if regex else {"prefix": prefix or "/"}
        )
        methods = given.take("methods", [])
        headers = [
            {"name": name, "string_match": {"exact": value}} for name, value in given.take("headers", {}).items()
        ]
        if methods:
            pattern = (
                {"exact": methods[0]}
                if len(methods) == 1
                else {"safe_regex": {"regex": "|".join(map(re.escape, methods))}}
            )
            headers.append({"name": ":method", "string_match": pattern})
        if headers:
            match["headers"] = headers
        action: dict[str, Any] = {}
        for key, theirs in ACTION.items():
            if said := given.take(key):
                action[theirs] = said
        if timeout := given.take("timeout"):
            action["timeout"] = f"{timeout:g}s"
        retry = Part(given.take("retry"), (*given.path, "retry"), self)
        if retry.value:
            policy: dict[str, Any] = {"retry_on": ",".join(retry.take("retry_on", []))}
            for key in ("num_retries", "retriable_status_codes"):
                if (said := retry.take(key)) is not None:
                    policy[key] = said
            if seconds := retry.take("per_try_timeout"):
                policy["per_try_timeout"] = f"{seconds:g}s"
            action["retry_policy"] = policy
            retry.rest()
        name = given.take("name")
        given.take("virtual_host")
        given.rest()
        return ({"name": name} if name else {}) | {"match": match, "route": action}

    def _cluster(self, name: str, given: Part) -> dict[str, Any]:
        url = given.take("url")
        servers = [Part(url, given.path, self, "url")] if url else [
            Part(each, (*given.path, "servers", at), self, "url") for at, each in enumerate(given.take("servers", []))
        ]  # fmt: skip
        endpoints = []
        secure = False
        for each in servers:
            parts = urlsplit(each.take("url", ""))
            secure = secure or parts.scheme == "https"
            endpoint: dict[str, Any] = {
                "endpoint": {
                    "address": _address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
                }
            }
            if weight := each.take("weight"):
                endpoint["load_balancing_weight"] = weight
            if parts.path not in ("", "/"):
                self.cannot.append(f"{dotted(each.path)}.url: its path")
            endpoints.append(endpoint)
            each.rest()
        made: dict[str, Any] = {"name": name, "type": "STRICT_DNS"}
        if seconds := given.take("connect_timeout"):
            made["connect_timeout"] = f"{seconds:g}s"
        if given.take("balance", "round_robin") == "least_requests":
            made["lb_policy"] = "LEAST_REQUEST"
        made["load_assignment"] = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
        if given.take("protocol") == "http2" or given.take("http2"):
            made["typed_extension_protocol_options"] = {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": f"{TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            }
        limits = {key: given.take(key) for key in ("max_connections", "max_pending_requests", "max_requests")}
        if any(limits.values()):
            made["circuit_breakers"] = {
                "thresholds": [{key: value for key, value in limits.items() if value is not None}]
            }
        outliers = Part(given.take("outlier_detection"), (*given.path, "outlier_detection"), self)
        if outliers.value:
            found = {key: outliers.take(key) for key in ("consecutive_5xx", "max_ejection_percent")}
            found |= {
                key: f"{seconds:g}s"
                for key in ("base_ejection_time", "max_ejection_time")
                if (seconds := outliers.take(key))
            }
            made["outlier_detection"] = {key: value for key, value in found.items() if value is not None}
            outliers.rest()
        tls = Part(given.take("tls"), (*given.path, "tls"), self)
        if secure:
            ca = tls.take("ca") or "/etc/ssl/certs/ca-certificates.crt"
            verify = tls.take("verify", True)
            sni = tls.take("server_name") or urlsplit(url or "").hostname
            made["transport_socket"] = _socket("Upstream", _certificate(tls), ca=ca if verify else None, sni=sni)
            tls.rest()
        given.rest()
        return made


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _certificate(tls: Part) -> dict[str, Any]:
    certificate, key = tls.take("certificate"), tls.take("key")
    if not certificate:
        return {}
    return {
        "tls_certificates": [
            {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key or certificate)}}
        ]
    }


def _socket(
    side: str, common: dict[str, Any], *, ca: Any = None, client_ca: Any = None, sni: Any = None
) -> dict[str, Any]:
    if ca or client_ca:
        common["validation_context"] = {"trusted_ca": {"filename": str(ca or client_ca)}}
    config: dict[str, Any] = {
        "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.{side}TlsContext",
        "common_tls_context": common,
    }
    if client_ca:
        config["require_client_certificate"] = True
    if sni:
        config["sni"] = sni
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


class IstioWriter(Writer):
    """A WasmPlugin of Istio for each filter."""

    api = "extensions.istio.io/v1alpha1"
    strategies: Mapping[str, str] = {"fail_open": "FAIL_OPEN", "fail_reload": "FAIL_RELOAD"}

    def write(self) -> str:
        documents = []
        filters = self._filters()
        for at, given in enumerate(filters):
            spec: dict[str, Any] = {"priority": 10 * (len(filters) - at)}
            name = given.take("name") or str(given.value.get("file", "")).rpartition("/")[2].partition(":")[
                0
            ].removesuffix(".wasm")
            spec |= self._source(given)
            if root_id := given.take("root_id"):
                spec["pluginName"] = root_id
            spec |= self._configuration(given)
            policy = given.take("failure_policy", "fail_reload")
            spec["failStrategy"] = self.strategies.get(policy, "FAIL_CLOSE")
            if policy == "fail_reload":
                given.take("reload_interval")
            if environment := given.take("environment"):
                spec["vmConfig"] = {"env": [{"name": key, "value": value} for key, value in environment.items()]}
            given.rest()
            documents.append(
                {"apiVersion": self.api, "kind": "WasmPlugin", "metadata": {"name": _dns(name)}, "spec": spec}
            )
        if self._own.take("profile", "envoy") != "envoy":
            self.cannot.append("profile")
        self._own.rest()
        return to_yaml(*documents)

    def _source(self, given: Part) -> dict[str, Any]:
        file = module(given)
        made: dict[str, Any] = {"url": file if is_remote(file) else f"file://{file}"}
        for key, theirs in (("sha256", "sha256"), ("pull_policy", "imagePullPolicy")):
            if said := given.take(key):
                made[theirs] = said
        return made

    def _configuration(self, given: Part) -> dict[str, Any]:
        configuration = given.take("configuration")
        if configuration is None:
            return {}
        value = as_value(configuration)
        if value is None:
            self.cannot.append(f"{dotted(given.path)}.configuration: it is a mapping there")
            return {}
        return {"pluginConfig": value}


class HigressWriter(IstioWriter):
    """A WasmPlugin of Higress for each filter."""

    api = "extensions.higress.io/v1alpha1"

    def _configuration(self, given: Part) -> dict[str, Any]:
        configured = super()._configuration(given)
        made: dict[str, Any] = {"defaultConfig": configured["pluginConfig"]} if configured else {}
        rules = []
        for at, each in enumerate(given.take("rules", [])):
            rule = Part(each, (*given.path, "rules", at), self)
            found: dict[str, Any] = {
                theirs: names
                for key, theirs in (("routes", "ingress"), ("hosts", "domain"), ("clusters", "service"))
                if (names := rule.take(key))
            }
            if rule.take("disabled"):
                found["configDisable"] = True
            elif (value := as_value(rule.take("configuration"))) is not None:
                found["config"] = value
            rule.rest()
            if found == {"configDisable": True}:
                made["defaultConfigDisable"] = True
            else:
                rules.append(found)
        return made | ({"matchRules": rules} if rules else {})


class GatewayWriter(IstioWriter):
    """An EnvoyExtensionPolicy of Envoy Gateway."""

    def write(self) -> str:
        wasm = []
        for given in self._filters():
            file, name = module(given), given.take("name")
            kind = "HTTP" if file.startswith(("http://", "https://")) else "Image"
            if not is_remote(file):
                self.cannot.append(f"{dotted(given.path)}.file: modules come from servers and registries there")
            source = {"url": file.removeprefix("oci://")} | ({"sha256": sha} if (sha := given.take("sha256")) else {})
            code = {"type": kind, "http" if kind == "HTTP" else "image": source}
            if policy := given.take("pull_policy"):
                code["pullPolicy"] = policy
            made: dict[str, Any] = {"name": name} if name else {}
            if root_id := given.take("root_id"):
                made["rootID"] = root_id
            made["code"] = code
            configured = self._configuration(given)
            made |= {"config": configured["pluginConfig"]} if configured else {}
            policy = given.take("failure_policy", "fail_reload")
            if policy == "fail_open":
                made["failOpen"] = True
            elif policy == "fail_reload":
                given.take("reload_interval")
                self.cannot.append(f"{dotted(given.path)}.failure_policy: fail_reload, it is fail_closed there")
            given.rest()
            wasm.append(made)
        self.cannot.append("which Gateway it is for: targetRefs names one that is called gateway")
        if self._own.take("profile", "envoy") != "envoy":
            self.cannot.append("profile")
        self._own.rest()
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"}
        return to_yaml(
            {
                "apiVersion": "gateway.envoyproxy.io/v1alpha1",
                "kind": "EnvoyExtensionPolicy",
                "metadata": {"name": "filters"},
                "spec": {"targetRefs": [target], "wasm": wasm},
            }
        )


def _dns(name: str) -> str:
    """A name that Kubernetes takes."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") or "filter"


class NginxWriter(Writer):
    """nginx with ngx_wasm_module."""

    def write(self) -> str:
        modules: dict[str, tuple[str, Any]] = {}
        chain = [self._filter(each, modules) for each in self._filters()]
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
        lines += ["}", "", "http {"]
        for name, each in upstreams.items():
            lines += self._upstream(name, each)
        if self._own.take("profile", "wasmx") != "wasmx":
            self.cannot.append("profile")
        self._own.rest()
        return "\n".join([*lines, *routes, "}", ""])

    def _filter(self, given: Part, modules: dict[str, tuple[str, Any]]) -> str:
        file = module(given)
        if is_remote(file):
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
        own = [
            self._filter(Part(each, (*given.path, "filters", at), self, "file"), modules)
            for at, each in enumerate(given.take("filters", []))
        ]
        name = given.take("upstream")
        upstream = upstreams.get(name or "")
        scheme = (
            "https"
            if upstream is not None and "https:" in str(upstream.value.get("url") or upstream.value.get("servers"))
            else "http"
        )
        rewrite = given.take("prefix_rewrite") or ""
        body = [
            *chain,
            *own,
            *(
                []
                if upstream is not None and upstream.value.get("rewrite_host")
                else ["proxy_set_header Host $http_host;"]
            ),
        ]
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
    """An argument of a directive."""
    shown: str = text.decode("utf-8", "replace") if isinstance(text, bytes) else as_text(text)
    if re.fullmatch(r"[\w./:@-]+", shown):
        return shown
    return "'" + shown.replace("\\", "\\\\").replace("'", "\\'") + "'"


WRITERS: dict[str, Callable[[Mapping[str, Any]], Writer]] = {
    "own": OwnWriter,
    "envoy": EnvoyWriter,
    "istio": IstioWriter,
    "higress": HigressWriter,
    "gateway": GatewayWriter,
    "nginx": NginxWriter,
}

"""Writes a bootstrap of Envoy."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlsplit

from proxywasm_host.configuration.envoy import TCP_PROXY
from proxywasm_host.configuration.node import dotted
from proxywasm_host.configuration.writers.base import INLINE, Part, Writer, as_text, host_and_port, module, to_yaml
from proxywasm_host.fetch.reference import is_remote

TYPE = "type.googleapis.com/"
ACTION = {
    "upstream": "cluster",
    "cluster_header": "cluster_header",
    "prefix_rewrite": "prefix_rewrite",
    "host_rewrite": "host_rewrite_literal",
}
REDIRECT = {
    "scheme": "scheme_redirect",
    "host": "host_redirect",
    "port": "port_redirect",
    "path": "path_redirect",
    "prefix_rewrite": "prefix_rewrite",
    "strip_query": "strip_query",
    "status": "response_code",
}
STATUSES: dict[Any, Any] = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
RELOAD = {"fail_reload": "FAIL_RELOAD", "fail_open": "FAIL_OPEN"}


class EnvoyWriter(Writer):
    """A bootstrap of Envoy."""

    def write(self) -> str:
        """A listener for HTTP with routes and filters, one for each item of `tcp`, and a cluster for each upstream."""
        own = self._own
        upstreams = self._upstreams()
        of_tcp = own.take("tcp", [])
        http = "routes" in own.value or "upstream" in upstreams or not of_tcp
        listeners = [self._http(upstreams)] if http else []
        listeners += [self._tcp(Part(each, ("tcp", at), self), at, upstreams) for at, each in enumerate(of_tcp)]
        clusters = [self._cluster(name, each) for name, each in upstreams.items()]
        for name, each in own.take("clusters", {}).items():
            if name not in upstreams:
                clusters.append(self._cluster(name, Part(each, ("clusters", name), self, "url")))
        made: dict[str, Any] = {"static_resources": {"listeners": listeners, "clusters": clusters}}
        if own.value.get("admin") is not None:
            made["admin"] = {"address": _address(*self._address("admin", ":0"))}
        if own.take("profile", "envoy") != "envoy":
            self.cannot.append("profile")
        own.rest()
        return to_yaml(made)

    def _http(self, upstreams: dict[str, Part]) -> dict[str, Any]:
        own = self._own
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
        return {
            "name": "main",
            "address": _address(*self._address("listen", "127.0.0.1:8080")),
            "filter_chains": [chain],
        }

    def _tcp(self, given: Part, number: int, upstreams: dict[str, Part]) -> dict[str, Any]:
        filters = [
            self._filter(Part(each, (*given.path, "filters", at), self, "file"), "network")
            for at, each in enumerate(given.take("filters", []))
        ]
        upstream = given.take("upstream", "")
        if "://" in upstream:
            upstreams.setdefault(upstream, Part({"url": upstream}, (*given.path, "upstream"), self))
        proxy = {"@type": f"{TYPE}{TCP_PROXY}", "stat_prefix": "tcp", "cluster": upstream}
        if attempts := given.take("connect_attempts"):
            proxy["max_connect_attempts"] = attempts
        if seconds := given.take("idle_timeout"):
            proxy["idle_timeout"] = f"{seconds:g}s"
        chain: dict[str, Any] = {"filters": [*filters, {"name": "tcp", "typed_config": proxy}]}
        tls = Part(given.take("tls"), (*given.path, "tls"), self)
        if tls.value:
            chain["transport_socket"] = _socket("Downstream", _certificate(tls), client_ca=tls.take("client_ca"))
            tls.rest()
        at = _address(*host_and_port(given.take("listen", "")))
        given.rest()
        return {"name": f"tcp_{number}", "address": at, "filter_chains": [chain]}

    def _filter(self, given: Part, kind: str = "http") -> dict[str, Any]:
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
                self.cannot.append(f"{dotted(given.path)}.file: Envoy requires its sha256")
        else:
            if is_remote(file):
                self.cannot.append(f"{dotted(given.path)}.file: Envoy does not fetch images")
            inline = {"inline_bytes": file.removeprefix(INLINE)} if file.startswith(INLINE) else None
            vm["code"] = {"local": inline or {"filename": file}}
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
            "name": f"envoy.filters.{kind}.wasm",
            "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.{kind}.wasm.v3.Wasm", "config": plugin},
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
        if weighted := given.take("weighted"):
            action["weighted_clusters"] = {
                "clusters": [{"name": name, "weight": weight} for name, weight in weighted.items()]
            }
        does: dict[str, Any] = {"route": action}
        if redirect := given.take("redirect"):
            does = {"redirect": {REDIRECT[key]: STATUSES.get(said, said) for key, said in redirect.items() if said}}
        elif answer := given.take("direct_response"):
            does = {"direct_response": {"status": answer.get("status", 200)}}
            if body := answer.get("body"):
                does["direct_response"]["body"] = {"inline_string": body}
        name = given.take("name")
        given.take("virtual_host")
        given.rest()
        return ({"name": name} if name else {}) | {"match": match} | does

    def _cluster(self, name: str, given: Part) -> dict[str, Any]:
        url = given.take("url")
        servers = [Part(url, given.path, self, "url")] if url else [
            Part(each, (*given.path, "servers", at), self, "url") for at, each in enumerate(given.take("servers", []))
        ]  # fmt: skip
        endpoints = []
        secure = False
        for each in servers:
            parts = urlsplit(each.take("url", ""))
            secure = secure or parts.scheme in ("https", "tls")
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


def as_any(value: Any) -> dict[str, Any]:
    """A configuration as an ``Any``."""
    text = as_text(value)
    if isinstance(text, bytes):
        return {"@type": f"{TYPE}google.protobuf.BytesValue", "value": base64.b64encode(text).decode()}
    return {"@type": f"{TYPE}google.protobuf.StringValue", "value": text}

"""Configurations of other hosts: what each comes to in the own form, and what is wrong or ignored, with its line."""

from __future__ import annotations

import copy
import functools
import logging
import operator
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format, struct_pb2

from proxywasm_host.configuration.node import dotted
from proxywasm_host.configuration.plugin_config import struct_bytes
from proxywasm_host.envoy.settings import ExtProcSettings
from proxywasm_host.errors import ConfigError
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.source import Source, read_configuration

PLUGIN = """
                  vm_config:
                    vm_id: vm
                    runtime: envoy.wasm.runtime.v8
                    code: {local: {filename: /opt/auth.wasm}}
                    environment_variables: {key_values: {MODE: strict}, host_env_keys: [FROM_HERE, NOT_THERE]}
"""
ENVOY = f"""\
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 9901}}}}}}
node: {{id: edge-1, cluster: edge}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 0.0.0.0, port_value: 8080}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          stream_idle_timeout: 60s
          use_remote_address: true
          route_config:
            virtual_hosts:
            - name: rest
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: web}}
            - name: api
              domains: [api.example.com, "api.example.com:8080"]
              routes:
              - name: v2
                match: {{prefix: /v2/, headers: [{{name: ":method", exact_match: GET}}, {{name: x-a, string_match: {{exact: b}}}}]}}
                route: {{cluster: api, prefix_rewrite: /, timeout: 2.5s, retry_policy: {{retry_on: "5xx,reset", num_retries: 2}}}}
          http_filters:
          - name: auth
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                  name: auth
                  root_id: auth_root
                  fail_open: true
                  configuration: {{"@type": type.googleapis.com/google.protobuf.StringValue, value: secret}}
                  capability_restriction_config: {{allowed_capabilities: {{proxy_log: {{}}}}}}{PLUGIN}
          - name: typed
            typed_config:
              "@type": type.googleapis.com/udpa.type.v1.TypedStruct
              type_url: type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              value:
                config:
                  failure_policy: FAIL_RELOAD
                  reload_config: {{backoff: {{base_interval: 0.5s}}}}
                  configuration:
                    "@type": type.googleapis.com/google.protobuf.Struct
                    value: {{b: 1, a: [x]}}
                  vm_config:
                    configuration: {{"@type": type.googleapis.com/google.protobuf.BytesValue, value: aGVsbG8=}}
                    code: {{remote: {{http_uri: {{uri: "https://example.com/two.wasm", cluster: web, timeout: 5s}}, sha256: "{"0" * 64}"}}}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: web
    connect_timeout: 1s
    lb_policy: LEAST_REQUEST
    load_assignment:
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: 80}}}}}}
          load_balancing_weight: 3
        - endpoint: {{address: {{socket_address: {{address: "::1", port_value: 80}}}}}}
  - name: api
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: api.internal, port_value: 443}}}}}}}}]}}]
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: api.internal
        common_tls_context: {{validation_context: {{trusted_ca: {{filename: ca.pem}}}}}}
"""
WEB = {"url": "http://10.0.0.1:80", "weight": 3}, {"url": "http://[::1]:80", "weight": 1}


def read(tmp_path: Path, text: str, name: str = "given.yaml"):
    (tmp_path / name).write_text(text)
    return read_configuration(tmp_path / name)[0]


def test_envoy_s_bootstrap(tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_HERE", "yes")
    own = read(tmp_path, ENVOY)
    auth, two = own["filters"]
    assert auth == {
        "file": "/opt/auth.wasm",
        "name": "auth",
        "root_id": "auth_root",
        "vm_id": "vm",
        "configuration": "secret",
        "environment": {"MODE": "strict", "FROM_HERE": "yes"},
        "failure_policy": "fail_open",
        "capabilities": ["proxy_log"],
    }
    assert two == {
        "file": "https://example.com/two.wasm",
        "sha256": "0" * 64,
        "configuration": struct_bytes({"a": ["x"], "b": 1}),
        "vm_configuration": "hello",
        "failure_policy": "fail_reload",
        "reload_interval": 0.5,
    }
    assert own["routes"] == [
        {
            "name": "v2",
            "virtual_host": "api",
            "hosts": ["api.example.com"],
            "prefix": "/v2/",
            "methods": ["GET"],
            "headers": {"x-a": "b"},
            "upstream": "api",
            "prefix_rewrite": "/",
            "timeout": 2.5,
            "retry": {"retry_on": ["5xx", "reset"], "num_retries": 2},
        },
        {"virtual_host": "rest", "upstream": "web"},
    ]
    assert own["upstreams"]["web"] == {"connect_timeout": 1.0, "servers": [*WEB], "balance": "least_requests"}
    assert own["upstreams"]["api"] == {
        "url": "https://api.internal:443",
        "tls": {"ca": "ca.pem", "server_name": "api.internal"},
        "protocol": "http2",
    }
    assert own["clusters"]["web"] == {"url": "http://10.0.0.1:80", "connect_timeout": 1.0}
    assert (own["listen"], own["admin"], own["stream_idle_timeout"]) == ("0.0.0.0:8080", "127.0.0.1:9901", 60.0)
    assert own["properties"] == {"xds.node.id": "edge-1", "xds.node.cluster": "edge"}


def test_a_struct_is_what_envoy_makes_of_it():
    values = {
        "text": "ä",
        "none": None,
        "yes": True,
        "no": False,
        "number": -1.5,
        "list": [1, "x", {}],
        "deep": {"a": {"b": []}},
    }
    assert struct_pb2.Struct.FromString(struct_bytes(values)) == json_format.ParseDict(values, struct_pb2.Struct())


def test_a_server_that_gateways_ask_has_filters_of_it_and_clusters(tmp_path, caplog):
    (tmp_path / "envoy.yaml").write_text(ENVOY)
    settings = Source(tmp_path / "envoy.yaml", model=ExtProcSettings, command="ext-proc").load()
    assert [each.name for each in settings.filters] == ["auth", ""]
    assert (
        "ignored: listen, routes, upstreams, forwarded, stream_idle_timeout: proxywasm ext-proc does not use it"
        in caplog.messages[-1]
    )
    assert settings.listen == ("127.0.0.1", 9002)


APISIX_PLUGINS = "wasm: {plugins: [{name: log, priority: 100, file: /opt/log.wasm}]}"
ISTIO = """\
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: stats, namespace: istio-system}
spec: {url: "file:///opt/stats.wasm", phase: STATS, priority: 100}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: second}
spec:
  selector: {matchLabels: {app: web}}
  url: registry.example/second:1
  imagePullPolicy: Always
  phase: AUTHN
  priority: 1
  failStrategy: FAIL_RELOAD
  pluginName: second_root
  vmConfig: {env: [{name: A, value: b}, {name: FROM_HERE, valueFrom: HOST}]}
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: first}
spec:
  phase: AUTHN
  priority: 10
  wasm:
    url: https://example.com/first.wasm
    sha256: ""
    pluginConfig: {realm: x}
"""


def test_plugins_of_istio_in_the_order_of_their_phases_and_priorities(tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_HERE", "yes")
    first, second, stats = read(tmp_path, ISTIO)["filters"]
    assert first == {
        "file": "https://example.com/first.wasm",
        "name": "first",
        "configuration": {"realm": "x"},
        "failure_policy": "fail_closed",
    }
    assert second == {
        "file": "oci://registry.example/second:1",
        "pull_policy": "Always",
        "name": "second_root",
        "root_id": "second_root",
        "failure_policy": "fail_reload",
        "reload_interval": 1.0,
        "environment": {"A": "b", "FROM_HERE": "yes"},
    }
    assert stats == {"file": "file:///opt/stats.wasm", "name": "stats", "failure_policy": "fail_closed"}


HIGRESS = """\
apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {name: basic-auth}
spec:
  url: oci://registry.example/basic-auth:1.0.0
  defaultConfig: {realm: all}
  matchRules:
  - domain: ["*.example.com"]
    config: {realm: some}
  - ingress: [default/foo]
    configDisable: true
"""


def test_a_plugin_of_higress_with_rules(tmp_path):
    own = read(tmp_path, HIGRESS)
    assert own["filters"][0]["configuration"] == {"realm": "all"}
    assert own["filters"][0]["rules"] == [
        {"hosts": ["*.example.com"], "configuration": {"realm": "some"}},
        {"routes": ["default/foo"], "disabled": True},
    ]


@pytest.mark.parametrize("text", [ENVOY, ISTIO, HIGRESS, APISIX_PLUGINS], ids=["envoy", "istio", "higress", "apisix"])
def test_what_it_comes_to_is_a_configuration_of_serve(tmp_path, text):
    (tmp_path / "given.yaml").write_text(text.replace('sha256: ""', ""))
    overrides = {} if text is ENVOY else {"upstream": {"url": "http://127.0.0.1:9000"}}
    assert Source(tmp_path / "given.yaml", overrides).load().filters


GATEWAY = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: policy}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: backend}]
  wasm:
  - name: one
    rootID: root
    code: {type: HTTP, http: {url: "https://example.com/one.wasm", sha256: SHA}}
    config: {a: 1}
    failOpen: true
  - code: {type: Image, image: {url: registry.example/two:v1}, pullPolicy: IfNotPresent}
""".replace("SHA", '"' + "ab" * 32 + '"')


def test_a_policy_of_envoy_gateway(tmp_path):
    assert read(tmp_path, GATEWAY)["filters"] == [
        {
            "file": "https://example.com/one.wasm",
            "sha256": "ab" * 32,
            "name": "one",
            "root_id": "root",
            "configuration": {"a": 1},
            "failure_policy": "fail_open",
        },
        {
            "file": "oci://registry.example/two:v1",
            "pull_policy": "IfNotPresent",
            "name": "policy/1",
            "failure_policy": "fail_closed",
        },
    ]


KUMA = """\
type: MeshProxyPatch
mesh: default
name: wasm
spec:
  targetRef: {kind: Mesh}
  default:
    appendModifications:
    - httpFilter:
        operation: AddFirst
        match: {origin: inbound}
        value: |
          name: envoy.filters.http.wasm
          typedConfig:
            "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
            config:
              name: mine
              vmConfig: {code: {local: {filename: /opt/mine.wasm}}}
"""


def test_a_patch_of_kuma(tmp_path):
    assert read(tmp_path, KUMA)["filters"] == [
        {"file": "/opt/mine.wasm", "name": "mine", "failure_policy": "fail_closed"}
    ]


NGINX = r"""
wasm {
    module headers /opt/headers.wasm;
    module auth /opt/auth.wasm 'of "the" VM';
    shm_kv cache 1m;
}
http {
    proxy_wasm headers "it\"s";     # of all locations without their own
    upstream app { server 10.0.0.1:80 weight=2; server 10.0.0.2:80; }
    server {
        listen 127.0.0.1:8080;
        server_name a.example _;
        location / { proxy_pass http://app; proxy_set_header Host $host; }
        location /api/ { proxy_wasm auth '{"a": 1}'; proxy_wasm headers; proxy_pass http://10.0.0.9:81/v1/; }
        location = /exact { proxy_pass http://app; }
    }
}
"""


def test_nginx_s_directives(tmp_path):
    own = read(tmp_path, NGINX, "nginx.conf")
    outer = {"file": "/opt/headers.wasm", "name": "headers", "configuration": 'it"s'}
    auth = {"file": "/opt/auth.wasm", "name": "auth", "vm_configuration": 'of "the" VM', "configuration": '{"a": 1}'}
    assert own["routes"] == [
        {"path": "/exact", "host_rewrite": "app", "upstream": "app", "filters": [outer]},
        {
            "prefix": "/api/",
            "prefix_rewrite": "/v1/",
            "host_rewrite": "10.0.0.9:81",
            "upstream": "10.0.0.9:81",
            "filters": [auth, {"file": "/opt/headers.wasm", "name": "headers"}],
        },
        {"upstream": "app", "filters": [outer]},
    ]
    assert own["upstreams"]["10.0.0.9:81"] == {"url": "http://10.0.0.9:81"}
    assert (own["profile"], own["listen"]) == ("wasmx", "127.0.0.1:8080")


def test_how_nginx_s_filters_call_addresses(tmp_path):
    assert read(tmp_path, NGINX, "nginx.conf")["allow_any_host"] == {"timeout": 60.0, "connect_timeout": 60.0}
    said = "socket_read_timeout 500ms; tls_trusted_certificate ca.pem; tls_verify_cert on;"
    text = NGINX.replace("shm_kv cache 1m;", said).replace("http {", "http { wasm_socket_connect_timeout 1m;")
    tls = {"ca": "ca.pem", "verify": True}
    assert read(tmp_path, text, "nginx.conf")["allow_any_host"] == {"timeout": 0.5, "connect_timeout": 60.0, "tls": tls}


def test_nginx_s_zones_of_shared_memory(tmp_path):
    own = read(tmp_path, NGINX.replace("shm_kv cache 1m;", "shm_kv cache 1m; shm_kv * 64k eviction=lru; shm_queue q 32k;"), "nginx.conf")
    assert own["shm_kv"] == {"cache": "1m", "*": {"size": "64k", "eviction": "lru"}}
    assert own["shm_queue"] == {"q": "32k"}


def test_nginx_s_isolation_is_that_of_the_innermost_level(tmp_path):
    text = NGINX.replace("http {", "http {\n    proxy_wasm_isolation stream;").replace("location = /exact {", "location = /exact { proxy_wasm_isolation filter;")
    own = read(tmp_path, text, "nginx.conf")
    assert [[each.get("isolation") for each in route["filters"]] for route in own["routes"]] == [["filter"], ["stream", "stream"], ["stream"]]


APISIX = """\
wasm:
  plugins:
  - {name: log, priority: 100, file: /opt/log.wasm}
  - {name: auth, priority: 7000, file: /opt/auth.wasm, http_request_phase: access}
routes:
- uri: /api/*
  host: a.example
  plugins: {log: {conf: "text"}, auth: {conf: {a: 1}}}
  upstream: {type: roundrobin, nodes: {"10.0.0.1:80": 2, "10.0.0.2:80": 1}}
"""


def test_wasm_plugins_of_apisix(tmp_path):
    own = read(tmp_path, APISIX)
    [route] = own["routes"]
    assert [(each["name"], each["configuration"]) for each in route["filters"]] == [
        ("auth", '{"a":1}'),
        ("log", "text"),
    ]
    assert (route["prefix"], route["hosts"]) == ("/api/", ["a.example"])
    assert [each["weight"] for each in own["upstreams"]["0"]["servers"]] == [2, 1]


def test_routes_and_plugins_of_apisix_in_its_order(tmp_path, caplog):
    """A rewriting plugin comes before others, and a route is chosen by its host and path, wherever it stands."""
    routes = [
        {"id": "all", "uri": "/*"},
        {"id": "low", "uri": "/a/*", "priority": 1},
        {"id": "high", "uri": "/a/*", "priority": 2},
        {"id": "deep", "uri": "/a/b/*"},
        {"id": "whole", "uri": "/a/b/c"},
        {"id": "host", "uri": "/*", "host": "a.example"},
        {"id": "off", "uri": "/off", "status": 0},
    ]
    used = {"first": {"conf": "1", "_meta": {"priority": 5}}, "late": {"conf": "2"}, "off": {"_meta": {"disable": True}}}
    plugins = [
        {"name": "late", "priority": 9, "file": "late.wasm"},
        {"name": "first", "priority": 1, "file": "first.wasm", "http_request_phase": "rewrite"},
        {"name": "off", "priority": 10, "file": "off.wasm"},
    ]
    for each in routes:
        each |= {"upstream": {"nodes": {"127.0.0.1:80": 1}}, "plugins": used}
    own = read(tmp_path, yaml.safe_dump({"wasm": {"plugins": plugins}, "routes": routes}))
    assert [route["name"] for route in own["routes"]] == ["host", "whole", "deep", "high", "low", "all"]
    assert [each["name"] for each in own["routes"][0]["filters"]] == ["first", "late"]
    assert any("its status is 0" in message for message in caplog.messages)
    assert any("it is disabled" in message for message in caplog.messages)


TCP = """\
static_resources:
  listeners:
  - name: db
    address: {socket_address: {address: 127.0.0.1, port_value: 6379}}
    filter_chains:
    - filters:
      - name: wasm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm
          config: {name: guard, vm_config: {runtime: envoy.wasm.runtime.v8, code: {local: {filename: /opt/guard.wasm}}}}
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: db
          max_connect_attempts: 3
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: {tls_certificates: [{certificate_chain: {filename: a.pem}, private_key: {filename: a.key}}]}
  clusters:
  - name: db
    load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: db, port_value: 6380}}}}]}]}
"""
OWN = """\
listen: 127.0.0.1:8080
admin: 127.0.0.1:9901
upstreams:
  app: {servers: [{url: "http://app:80", weight: 2}], tls: {verify: false}, retry: {retry_on: [reset]}, outlier_detection: {}}
routes:
- {prefix: /old, redirect: {path: /new}}
- {path: /health, direct_response: {status: 200}}
- {upstream: app, filters: [{file: a.wasm, match: {hosts: [a], unless: [{hosts: [b]}]}}], retry: {retry_on: [5xx]}}
tcp:
- {listen: ":6379", upstream: "tcp://db:6379", filters: [{file: a.wasm}], tls: {certificate: a.pem}}
filters:
- {file: a.wasm, limits: {memory: 64MiB}, rules: [{hosts: [a], configuration: {}}]}
clusters: {idp: {url: "http://idp", tls: {verify: false}}}
limits: {deadline: 1}
tls: {certificate: a.pem}
clients: {max_headers: 50}
forwarded: {rfc7239: true}
access_log: {format: json}
record: {directory: r}
modules: {timeout: 5}
recycle: {age: 5}
metric_tags: [{tag_name: a, regex: "^(a)"}]
shm_kv: {cache: {size: 64KiB}}
"""


def test_envoy_s_listener_of_tcp(tmp_path):
    own = read(tmp_path, TCP)
    assert own == {
        "tcp": [
            {
                "listen": "127.0.0.1:6379",
                "filters": [{"file": "/opt/guard.wasm", "name": "guard", "failure_policy": "fail_closed"}],
                "tls": {"certificate": "a.pem", "key": "a.key"},
                "upstream": "db",
                "connect_attempts": 3,
            }
        ],
        "upstreams": {"db": {"url": "tcp://db:6380"}},
        "clusters": {"db": {"url": "http://db:6380"}},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TCP.replace("cluster: db\n", "weighted_clusters: {clusters: [{name: db, weight: 1}]}\n"), "a TCP listener has one upstream: write cluster"),
        (TCP.replace("network.tcp_proxy.v3.TcpProxy", "network.redis_proxy.v3.RedisProxy"), "RedisProxy' is not supported: HttpConnectionManager, Wasm, TcpProxy are"),
        (TCP.replace("- name: wasm", "- name: first\n        typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: db}\n      - name: wasm"), "comes after TcpProxy, which ends the chain"),
        (ENVOY.replace("    - filters:\n", "    - filters:\n      - name: wasm\n        typed_config:\n          '@type': type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm\n          config: {vm_config: {code: {local: {filename: a}}}}\n"), "network filters before HTTP are not supported here"),
    ],
)  # fmt: skip
def test_listeners_of_tcp_that_are_not_understood(tmp_path, text, said):
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert said in str(raised.value)


# -- Never silence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (ENVOY.replace("stat_prefix", "stat_prefx"), "e.yaml", ":12: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefx: is not understood here"),
        (ENVOY.replace("cluster: web}", "cluster: wob}"), "e.yaml", "a route goes to the cluster 'wob', which is not among the clusters"),
        (ENVOY.replace("http.router.v3.Router", "http.lua.v3.Lua").replace("envoy.filters.http.router", "lua"), "e.yaml", "the filter 'lua' is part of Envoy, and proxywasm does not have it"),
        (ENVOY.replace("FAIL_RELOAD", "FAIL_LATER"), "e.yaml", "'FAIL_LATER' is not one of UNSPECIFIED, FAIL_RELOAD, FAIL_CLOSED, FAIL_OPEN"),
        (ENVOY.replace("value: aGVsbG8=", "value: '*'"), "e.yaml", "configuration.value: is not base64"),
        (ENVOY.replace("60s", "soon"), "e.yaml", ":13: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stream_idle_timeout: 'soon' is not a duration"),
        (ISTIO.replace("failStrategy", "failStratgy"), "i.yaml", ":15: spec.failStratgy: is not understood here"),
        (ISTIO.replace("  wasm:\n", "  lua: {inlineCode: x}\n  wasm:\n"), "i.yaml", "spec.lua: scripts in Lua are not supported"),
        (GATEWAY.replace("  wasm:\n", "  extProc: [{}]\n  wasm:\n"), "g.yaml", "extProc is not a Wasm filter"),
        (KUMA.replace("AddFirst", "Remove"), "k.yaml", "the operation 'Remove' needs filters that are not here"),
        (NGINX.replace("proxy_wasm auth", "proxy_wasm ath"), "nginx.conf", ":14: proxy_wasm: no module is called 'ath'"),
        (NGINX.replace("http {", "http { proxy_wasm_isolation all;"), "nginx.conf", ":7: proxy_wasm_isolation: must be none, stream or filter"),
        (NGINX.replace("location = /exact", "location ~ x$ { proxy_pass http://app; } location ^~ /api { proxy_pass http://app; } location = /exact"), "nginx.conf", "location: is below a location with ^~, and before regular expressions: that is not supported"),
        (NGINX.replace("location = /exact { proxy_pass http://app;", "location ~ x$ { proxy_pass http://app/x;"), "nginx.conf", "proxy_pass: has a path, which nginx does not allow in a location of a regular expression"),
        (NGINX.replace("Host $host", "Host $server_name"), "nginx.conf", "location: sends $server_name as Host: that is not supported; $host, $http_host and $proxy_host are"),
        (NGINX.replace("proxy_pass http://app; }", "return 200 x; }"), "nginx.conf", ":15: location: has no proxy_pass"),
        (NGINX.replace("shm_kv cache 1m;", "shm_kv cache 1m"), "nginx.conf", ":6: an unexpected }: is a ; missing?"),
        (NGINX.replace("}\n}\n", "}\n"), "nginx.conf", ":7: a { is not closed"),
        (NGINX.replace("shm_kv cache 1m;", "socket_read_timeout soon;"), "nginx.conf", ":5: socket_read_timeout: 'soon' is not a time: write it as 60s"),
        (NGINX.replace("shm_kv cache 1m;", "tls_verify_cert maybe;"), "nginx.conf", ":5: tls_verify_cert: is on or off, not 'maybe'"),
        (APISIX.replace("log: {conf", "jwt: {conf"), "a.yaml", "'jwt' is not one of wasm.plugins"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_an_error_with_its_place(tmp_path, text, name, said):
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text, name)
    assert said in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / name))


FREE = {
    ("ENVOY", "key_values"): "names of variables",
    ("ENVOY", "allowed_capabilities"): "names of hostcalls; one that nobody knows is noted",
    ("ENVOY", "configuration.value"): "a Struct",
    ("ISTIO", "pluginConfig"): "the filter's",
    ("HIGRESS", "defaultConfig"): "the filter's",
    ("HIGRESS", "config"): "the filter's",
    ("GATEWAY", "config"): "the filter's",
    ("APISIX", "conf"): "the filter's",
    ("APISIX", "nodes"): "names of servers",
    ("OWN", "configuration"): "the filter's",
}
"""Mappings whose keys their author chooses."""


def mappings(value: object, path: tuple = ()):
    if isinstance(value, dict):
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from mappings(item, (*path, key))


@pytest.mark.parametrize("form", ["ENVOY", "TCP", "ISTIO", "HIGRESS", "GATEWAY", "KUMA", "APISIX", "OWN"])
def test_a_key_that_nobody_knows_is_told_wherever_it_stands(tmp_path, caplog, form):
    """With file, line and path; or one warning says that what it stands in has no effect."""
    documents = list(yaml.safe_load_all(globals()[form]))
    free = set()
    for number, document in enumerate(documents):
        for path in mappings(document):
            given = copy.deepcopy(documents)
            functools.reduce(operator.getitem, path, given[number])["nobody_s"] = 1
            text = yaml.safe_dump_all(given, sort_keys=False)
            line = next(at for at, said in enumerate(text.splitlines(), 1) if "nobody_s:" in said)
            caplog.clear()
            (tmp_path / "given.yaml").write_text(text)
            try:
                Source(tmp_path / "given.yaml", {} if form in ("ENVOY", "TCP", "APISIX", "OWN") else {"upstream": "http://x"}).load()
            except ConfigError as error:
                said = str(error)
                assert f"given.yaml:{line}: " in said, said
                assert "nobody_s" in said
            else:
                places = [dotted(path[:end]) for end in range(1, len(path) + 1)]
                warned = any(f": {place}: ignored" in message for message in caplog.messages for place in places)
                if not warned:
                    free.add(next(((name, end) for name, end in FREE if name == form and dotted(path).endswith(end)), path))
    assert free == {place for place in FREE if place[0] == form}


@pytest.mark.parametrize("block", ["wasm {", "http {", "upstream app {", "server {", "location /api/ {"])
def test_a_directive_that_nobody_knows_is_told_wherever_it_stands(tmp_path, block):
    assert block in NGINX
    text = NGINX.replace(block, block + "\nnobody_s 1;", 1)
    line = next(at for at, said in enumerate(text.splitlines(), 1) if "nobody_s" in said)
    with pytest.raises(ConfigError, match=rf"nginx.conf:{line}: nobody_s: "):
        read(tmp_path, text, "nginx.conf")


def test_what_is_ignored_is_told_once(tmp_path, caplog):
    read(tmp_path, ENVOY, "e.yaml")
    told = [message for message in caplog.messages if " Envoy" in message]
    assert any("Struct as a protobuf message" in message for message in told)
    caplog.clear()
    read(tmp_path, ISTIO, "i.yaml")
    read(tmp_path, NGINX.replace("shm_kv cache 1m;", "socket_buffer_size 2k;"), "nginx.conf")
    assert [message.rpartition("/")[2] for message in caplog.messages] == [
        "i.yaml:10: spec.selector: ignored: it runs for all requests here",
        "nginx.conf:5: socket_buffer_size: ignored: buffers and sockets of callouts are the client's own",
    ]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_the_own_form_is_read_as_before_and_values_that_are_wrong_have_their_line(tmp_path):
    assert read(tmp_path, "upstream: http://127.0.0.1:9000\nfilters: [a.wasm]\n")["filters"] == ["a.wasm"]
    (tmp_path / "envoy.yaml").write_text(ENVOY.replace('"0000', '"zz00').replace("'0' * 64", "x"))
    with pytest.raises(ConfigError, match=r"envoy.yaml:\d+: filters\[1\].sha256"):
        Source(tmp_path / "envoy.yaml", model=Settings).load()

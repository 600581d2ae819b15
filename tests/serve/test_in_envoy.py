"""The same configuration in a real Envoy and in ``serve``, as Envoy has it and as we write it: the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from proxywasm_host.configuration.writers.envoy import EnvoyWriter
from proxywasm_host.serve.source import read_configuration
from tests.envoy import proxy
from tests.serve.in_process import beside

FILTERS = Path(__file__).parents[1] / "filters"
SCRIPT = "@on_request_headers\nget_header_map_value 0 x-local\nif_status 0\nsend_local_response 418 tea short%20and%20stout x-local=1 -1\n"
ANY = {
    "StringValue": '{"@type": type.googleapis.com/google.protobuf.StringValue, value: "some text"}',
    "BytesValue": '{"@type": type.googleapis.com/google.protobuf.BytesValue, value: aGVsbG8=}',
}
ENVOY = """\
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          server_header_transformation: PASS_THROUGH
          route_config:
            virtual_hosts:
            - name: rest
              domains: ["*"]
              routes:
              - match: {{path: /exact}}
                route: {{cluster: web, prefix_rewrite: /rewritten}}
              - match: {{prefix: /api/, headers: [{{name: x-kind, string_match: {{exact: b}}}}]}}
                route: {{cluster: web, prefix_rewrite: /b/}}
              - match: {{prefix: /api/}}
                route: {{cluster: web, host_rewrite_literal: inner.example}}
              - match: {{prefix: /cut}}
                route: {{cluster: web, prefix_rewrite: /}}
              - match: {{prefix: /deep}}
                route: {{cluster: web, prefix_rewrite: /er/}}
            - name: short
              domains: ["*.example.com", named.long.example.com]
              routes: [{{match: {{path: /short}}, route: {{cluster: web}}}}]
            - name: long
              domains: ["*.long.example.com"]
              routes: [{{match: {{path: /all}}, route: {{cluster: web}}}}]
            - name: named
              domains: [api.example.com]
              routes: [{{match: {{safe_regex: {{regex: "/v[0-9]+/.*"}}}}, route: {{cluster: web}}}}]
          http_filters:
          - name: headers
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: headers
                configuration: {any}
                vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: {filters}/rust/headers.wasm}}}}}}
          - name: probe
            typed_config:
              "@type": type.googleapis.com/xds.type.v3.TypedStruct
              type_url: type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              value:
                config:
                  configuration: {{"@type": type.googleapis.com/google.protobuf.StringValue, value: "{script}"}}
                  vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: {filters}/c/probe_0_2_1.wasm}}}}}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: web
    connect_timeout: 1s
    load_assignment:
      cluster_name: web
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]
"""
OWN = """\
listen: 127.0.0.1:0
upstreams: {{web: {{url: "http://127.0.0.1:{port}"}}}}
routes:
- {{path: /exact, upstream: web, prefix_rewrite: /rewritten}}
- {{prefix: /api/, headers: {{x-kind: b}}, upstream: web, prefix_rewrite: /b/}}
- {{prefix: /api/, upstream: web, host_rewrite: inner.example}}
- {{prefix: /cut, upstream: web, prefix_rewrite: /}}
- {{prefix: /deep, upstream: web, prefix_rewrite: /er/}}
- {{hosts: [api.example.com], regex: "/v[0-9]+/.*", upstream: web}}
filters:
- {{file: {filters}/rust/headers.wasm, configuration: {{b: [1, true, "x"]}}, failure_policy: fail_closed}}
- {{file: {filters}/c/probe_0_2_1.wasm, configuration: "{script}"}}
"""
REQUESTS = (
    ("GET", "/exact", {}),
    ("GET", "/exact/not", {}),
    ("GET", "/api/x?y", {}),
    ("GET", "/api/x", {"x-kind": "b", "x-remove-me": "1"}),
    ("POST", "/api/x", {"x-local": "1"}),
    ("GET", "/cut", {}),
    ("GET", "/cut/x?y=/cut", {}),
    ("GET", "/cut//x", {}),
    ("GET", "/cuts", {}),
    ("GET", "/deep/x", {}),
    ("GET", "/v2/x", {"host": "api.example.com"}),
    ("GET", "/api/x", {"host": "api.example.com"}),
    ("GET", "/vx/x", {"host": "api.example.com"}),
    ("GET", "/all", {"host": "a.long.example.com"}),
    ("GET", "/exact", {"host": "a.long.example.com"}),
    ("GET", "/short", {"host": "a.example.com"}),
    ("GET", "/all", {"host": "a.example.com"}),
    ("GET", "/short", {"host": "named.long.example.com"}),
    ("GET", "/all", {"host": "named.long.example.com"}),
    ("GET", "/healthz", {"host": "api.example.com"}),
    ("GET", "/api/x", {"host": "api.example.com", "authorization": "Bearer s"}),
)


WASM = """\
          - name: {name}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: {name}
                root_id: {name}
                configuration: {{"@type": type.googleapis.com/google.protobuf.StringValue, value: "{configuration}"}}
                {more}
                vm_config: {{vm_id: {name}, runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: {filters}/{file}.wasm}}}}}}
"""
LISTENER = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          codec_type: AUTO
          server_header_transformation: PASS_THROUGH
          route_config:
            name: local_route
            virtual_hosts:
{hosts}
          http_filters:
{filters}          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
{clusters}admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
"""
CLUSTER = """\
  - name: {name}
    type: STRICT_DNS
    connect_timeout: 0.25s
    lb_policy: ROUND_ROBIN
    {more}
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}
"""


def of_parts(hosts: str, filters: list[dict], clusters: dict[str, str], port: int) -> str:
    """A configuration as people write them around these."""
    wasm = "".join(WASM.format(filters=FILTERS, **{"more": "fail_open: false", **each}) for each in filters)
    made = "".join(CLUSTER.format(name=name, more=more, port=port) for name, more in clusters.items())
    return LISTENER.format(hosts=hosts, filters=wasm, clusters=made)


PUBLISHED = {
    "one service behind one filter": (
        """\
            - {name: local_service, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: web_service}}]}""",
        [{"name": "headers", "file": "rust/headers", "configuration": "hello"}],
        {"web_service": "respect_dns_ttl: true"},
    ),
    "an API with a canary, a redirect and a page of its own": (
        """\
            - name: api
              domains: [api.example.com, "api.example.com:8080"]
              routes:
              - {match: {path: /healthz}, direct_response: {status: 200, body: {inline_string: ok}}}
              - {match: {prefix: /api/, headers: [{name: x-kind, string_match: {exact: b}}]}, route: {cluster: canary, prefix_rewrite: /canary/}}
              - {match: {prefix: /api/}, route: {cluster: stable, timeout: 5s, retry_policy: {retry_on: "5xx,connect-failure", num_retries: 2}}}
              - {match: {path: /exact}, redirect: {path_redirect: /elsewhere, response_code: FOUND}}
            - {name: everything_else, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: stable, host_rewrite_literal: stable.internal}}]}""",
        [
            {"name": "auth", "file": "rust/auth", "configuration": "s", "more": "failure_policy: FAIL_CLOSED"},
            {"name": "headers", "file": "go/headers", "configuration": "from Go"},
        ],
        {"stable": "circuit_breakers: {thresholds: [{max_connections: 100}]}", "canary": "outlier_detection: {consecutive_5xx: 3}"},
    ),
    "a filter that may only log, and one that fails open": (
        """\
            - {name: all, domains: ["*"], routes: [{match: {safe_regex: {regex: "/v[0-9]+/.*"}}, route: {cluster: web}}, {match: {prefix: /api/}, route: {weighted_clusters: {clusters: [{name: web, weight: 1}, {name: other, weight: 0}]}}}]}""",
        [
            {"name": "panics", "file": "rust/panics", "configuration": "panic:request_headers", "more": "failure_policy: FAIL_OPEN"},
            {
                "name": "limited",
                "file": "rust/headers",
                "configuration": "x",
                "more": "capability_restriction_config: {allowed_capabilities: {proxy_on_vm_start: {}, proxy_on_configure: {}, proxy_on_context_create: {}, proxy_log: {}, proxy_get_buffer_bytes: {}, proxy_on_request_headers: {}, clock_time_get: {}, environ_get: {}, environ_sizes_get: {}, fd_write: {}, proc_exit: {}, random_get: {}, proxy_set_effective_context: {}, proxy_get_header_map_value: {}, proxy_add_header_map_value: {}, proxy_remove_header_map_value: {}, proxy_replace_header_map_value: {}}}",
            },
        ],
        {"web": "", "other": ""},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_configurations_as_people_publish_them(tmp_path, upstream, engine, kind, monkeypatch):
    monkeypatch.setenv("PROXYWASM_ENGINE", engine.name)
    file = tmp_path / "envoy.yaml"
    file.write_text(of_parts(*PUBLISHED[kind], upstream))
    own = read_configuration(file)[0]
    theirs, ours = through_both(tmp_path, own, file)
    assert ours == theirs
    assert len({status for status, *_ in theirs}) > 1 or kind.startswith("one service")
    # the same in JSON, and as `convert` writes it back
    (tmp_path / "envoy.json").write_text(json.dumps(yaml.safe_load(file.read_text())))
    assert read_configuration(tmp_path / "envoy.json")[0] == own
    writer = EnvoyWriter(own)
    (tmp_path / "again.yaml").write_text(writer.write())
    assert writer.cannot == []
    again = read_configuration(tmp_path / "again.yaml")[0]
    assert [each.get("configuration") for each in again["filters"]] == [each.get("configuration") for each in own["filters"]]


@pytest.fixture(scope="module")
def upstream():
    with proxy.upstream() as port:
        yield port


def answers(served: proxy.Proxy) -> list:
    """Of each request: the status, what a filter has put there, and what of the request upstream got."""
    found = []
    for method, path, headers in REQUESTS:
        answer = served.request(method, path, headers={"host": "example.com", **headers})
        told = {name: answer.headers.get(name) for name in ("server", "x-local")} if answer.status != 404 else {}
        got = answer.echo if answer.status == 200 else {"path": answer.body, "headers": {}}
        there = {name.lower(): value for name, value in got["headers"].items()}
        seen = [there.get(name) for name in ("host", "x-wasm", "x-remove-me", "x-kind")]
        found.append((answer.status, told, got["path"] if answer.status != 404 else "", seen))
    return found


def through_both(tmp_path: Path, own: dict, envoy: Path) -> tuple[list, list]:
    with proxy.running(tmp_path, envoy) as real:
        theirs = answers(real)
    given = {key: value for key, value in own.items() if key not in ("listen", "admin")}
    with beside(given) as served:
        ours = answers(proxy.Proxy(served.port, 0, None, tmp_path, tmp_path))
    return theirs, ours


@pytest.mark.parametrize("kind", ANY)
def test_envoy_s_configuration(tmp_path, upstream, kind):
    file = tmp_path / "envoy.yaml"
    file.write_text(ENVOY.format(any=ANY[kind], script=SCRIPT.replace("\n", "\\n"), filters=FILTERS, port=upstream))
    own = read_configuration(file)[0]
    theirs, ours = through_both(tmp_path, own, file)
    assert ours == theirs
    assert [status for status, *_ in theirs] == [200, 404, 200, 200, 418, *[200] * 6, 404, 404, 200, 404, 200, 404, 200, *[404] * 3]


def test_our_configuration_written_for_envoy(tmp_path, upstream):
    file = tmp_path / "own.yaml"
    file.write_text(OWN.format(script=SCRIPT.replace("\n", "\\n"), filters=FILTERS, port=upstream))
    own = read_configuration(file)[0]
    writer = EnvoyWriter(own | {"admin": "127.0.0.1:0"})
    (tmp_path / "envoy.yaml").write_text(writer.write())
    assert writer.cannot == []
    theirs, ours = through_both(tmp_path, own, tmp_path / "envoy.yaml")
    assert [status for status, *_ in theirs] == [200, 404, 200, 200, 418, *[200] * 6, 404, 404, 404, 200, *[404] * 6]
    assert ours[:11] == theirs[:11]

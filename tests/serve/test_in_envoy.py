"""The same configuration in a real Envoy and in ``serve``, as Envoy has it and as we write it: the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest

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
)


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
    assert [status for status, *_ in theirs] == [200, 404, 200, 200, 418, *[200] * 6, 404, 404, 200, 404, 200, 404, 200, 404]


def test_our_configuration_written_for_envoy(tmp_path, upstream):
    file = tmp_path / "own.yaml"
    file.write_text(OWN.format(script=SCRIPT.replace("\n", "\\n"), filters=FILTERS, port=upstream))
    own = read_configuration(file)[0]
    writer = EnvoyWriter(own | {"admin": "127.0.0.1:0"})
    (tmp_path / "envoy.yaml").write_text(writer.write())
    assert writer.cannot == []
    theirs, ours = through_both(tmp_path, own, tmp_path / "envoy.yaml")
    assert [status for status, *_ in theirs] == [200, 404, 200, 200, 418, *[200] * 6, 404, 404, 404, 200, *[404] * 4]
    assert ours[:11] == theirs[:11]

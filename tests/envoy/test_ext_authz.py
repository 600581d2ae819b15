"""``proxywasm ext-authz`` behind a real Envoy, by gRPC and by HTTP; and as other gateways ask it."""

from __future__ import annotations

import http.client
import json

import pytest

from tests.envoy.proxy import Proxy, Served, envoy, served, upstream, wait_for
from tests.envoy.rig import API
from tests.support import FILTERS

AUTH = FILTERS / "rust/auth.wasm"
PROBE = FILTERS / "c/probe_0_2_1.wasm"
EXT_AUTHZ = API + "extensions.filters.http.ext_authz.v3.ExtAuthz"


@pytest.fixture(scope="module")
def origin():
    with upstream() as port:
        yield port


@pytest.fixture
def asked(tmp_path, origin):
    """A function that starts ``proxywasm ext-authz`` and an Envoy that asks it, by ``grpc`` or ``http``."""
    stack = []

    def start(form: str, filter: object, config: str, *options: object, **more: object) -> tuple[Served, Proxy]:
        http = ("--http", "127.0.0.1:0")
        context = served(
            "ext-authz", filter, "--filter-config", config, "--listen", "127.0.0.1:0", *http, *options
        )
        ours = context.__enter__()
        stack.append(context)
        if form == "grpc":
            service = {"grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "10s"}}
            clusters = {"grpc": {"authz": ours.port}}
        else:
            port = int(ours.line(r"also listening for HTTP at http://127.0.0.1:(\d+)")[1])
            uri = {"uri": f"http://127.0.0.1:{port}", "cluster": "authz", "timeout": "10s"}
            response = {"allowed_upstream_headers": {"patterns": [{"prefix": "x-"}]}}
            response["allowed_client_headers"] = {"patterns": [{"prefix": "x-"}, {"exact": "www-authenticate"}]}
            request = {"allowed_headers": {"patterns": [{"exact": "authorization"}, {"prefix": "x-"}]}}
            service = {"http_service": {"server_uri": uri, "authorization_response": response}, **request}
            address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
            endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
            clusters = {
                "clusters": [{"name": "authz", "load_assignment": {"cluster_name": "authz", "endpoints": endpoints}}]
            }
        config = {"@type": EXT_AUTHZ, **service, **more}
        context = envoy(
            tmp_path / f"envoy-{len(stack)}", [{"name": "ext_authz", "typed_config": config}], origin,
            log_format="%RESPONSE_CODE% %DYNAMIC_METADATA(envoy.filters.http.ext_authz)%\n", **clusters,
        )  # fmt: skip
        proxy = context.__enter__()
        stack.append(context)
        return ours, proxy

    yield start
    for context in reversed(stack):
        context.__exit__(None, None, None)


FORMS = pytest.mark.parametrize("form", ["grpc", "http"])


@pytest.mark.usefixtures("on_engine")
@FORMS
def test_a_filter_decides(asked, form):
    _, proxy = asked(form, AUTH, "t")
    assert proxy.request(headers={"authorization": "Bearer t"}).status == 200
    denied = proxy.request(headers={"authorization": "Bearer other"})
    assert (denied.status, "upstream" in denied.body.decode()) == (401, False)


@FORMS
def test_headers_for_upstream(asked, form):
    script = "\n@on_request_headers\nadd_header_map_value 0 x-user alice\nreplace_header_map_value 0 x-had new\n"
    _, proxy = asked(form, PROBE, script)
    got = proxy.request(headers={"x-had": "old"}).echo["headers"]
    assert (got["x-user"], got["x-had"]) == ("alice", "new")


def test_a_header_is_removed_and_what_is_stored_is_dynamic_metadata(asked):
    script = "\n@on_request_headers\nremove_header_map_value 0 x-secret\nset_property user alice\n"
    _, proxy = asked("grpc", PROBE, script)
    assert "x-secret" not in proxy.request(headers={"x-secret": "s"}).echo["headers"]
    logged = wait_for(lambda: proxy.access_log.exists() and proxy.access_log.read_text())
    assert '"wasm":{"user":"alice"}' in logged


@FORMS
def test_the_denial_is_the_filters_response(asked, form):
    script = "\n@on_request_headers\nsend_local_response 418 details teapot x-why=kettle -1\nreturn 1\n"
    _, proxy = asked(form, PROBE, script)
    denied = proxy.request()
    assert (denied.status, denied.headers["x-why"], denied.body) == (418, "kettle", b"teapot")


@FORMS
def test_it_may_ask_others(asked, form, origin):
    script = (
        '\n@on_request_headers\nhttp_call idp :method=GET&:path=/&:authority=idp "" "" 5000\nreturn 1\n'
        "@on_http_call_response\nset_effective_context $stream\nadd_header_map_value 0 x-allowed yes\ncontinue_stream 0\n"
    )
    _, proxy = asked(form, PROBE, script, "--cluster", f"idp=http://127.0.0.1:{origin}")
    assert proxy.request().echo["headers"]["x-allowed"] == "yes"


@FORMS
def test_it_sees_the_body_if_envoy_sends_it(asked, form):
    script = "\n@on_request_headers\nreturn 0\n@on_request_body/eos\nget_buffer_bytes 0 0 100\n"
    body = {"with_request_body": {"max_request_bytes": 1000, "allow_partial_message": True}}
    ours, proxy = asked(form, PROBE, script, **body)
    assert proxy.request("POST", "/", b"abc").echo["body"] == "abc"
    ours.line(r'get_buffer_bytes\(0, 0, 100\) = 0 "abc"')


@FORMS
@pytest.mark.parametrize("what", ["trap", "loop"])
def test_a_filter_that_fails_costs_no_request_that_envoy_would_let_pass(asked, form, what):
    script = f"\n@on_request_headers\n{what}\n"
    _, proxy = asked(form, PROBE, script, "--deadline", "0.3", failure_mode_allow=True)
    assert [proxy.request().status for _ in range(3)] == [200] * 3
    _, proxy = asked(form, PROBE, script, "--deadline", "0.3")
    assert proxy.request().status == 403


@pytest.mark.usefixtures("on_engine")
def test_a_filter_that_loops_is_ended_on_each_engine(asked):
    _, proxy = asked("grpc", PROBE, "\n@on_request_headers\nloop\n", "--deadline", "0.3", failure_mode_allow=True)
    assert [proxy.request().status for _ in range(2)] == [200] * 2


def test_as_others_ask_over_http():
    with served(
        "ext-authz", AUTH, "--filter-config", "t", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
    ) as ours:  # fmt: skip
        port = int(ours.line(r"also listening for HTTP at http://127.0.0.1:(\d+)")[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for headers, status in ({"authorization": "Bearer t"}, 200), ({}, 401):
            connection.request("GET", "/private?x", headers=headers)
            response = connection.getresponse()
            response.read()
            assert response.status == status
        connection.close()


def test_a_filter_has_a_configuration_of_its_own_for_a_host(tmp_path):
    rules = [{"hosts": ["b.example"], "configuration": "other"}, {"paths": ["/open*"], "disabled": True}]
    config = tmp_path / "authz.json"
    config.write_text(json.dumps({"filters": [{"file": str(AUTH), "configuration": "t", "rules": rules}]}))
    with served("ext-authz", "--config", config, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0") as ours:
        port = int(ours.line(r"also listening for HTTP at http://127.0.0.1:(\d+)")[1])

        def status(path: str, host: str, token: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path, headers={"host": host, "authorization": f"Bearer {token}"})
            answered = connection.getresponse().status
            connection.close()
            return answered

        assert [status("/", "a.example", token) for token in ("t", "other")] == [200, 401]
        assert [status("/", "b.example:81", token) for token in ("t", "other")] == [401, 200]
        assert status("/open/x", "a.example", "") == 200

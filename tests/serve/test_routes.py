"""Where requests go: the first route that fits, what it rewrites, its filters, and what filters have to say in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import pytest

from tests.serve.conftest import AUTH, HEADERS
from tests.serve.origin import Origin, Request, running
from tests.serve.ports import closed_port
from tests.support import FILTERS

PROPERTIES = str(FILTERS / "rust/properties.wasm")
PROBE = str(FILTERS / "c/probe_0_2_1.wasm")
PROBE_OF_HIGRESS = str(FILTERS / "c/probe_0_2_100.wasm")


@pytest.fixture
def origins() -> Iterator[Callable[[str], dict[str, Origin]]]:
    """Servers by name: ``origins("one two")``."""
    with ExitStack() as stack:
        yield lambda names: {name: stack.enter_context(running()) for name in names.split()}


def upstreams(origins: dict[str, Origin], **settings: object) -> dict[str, object]:
    return {name: {"url": origin.url, **settings} for name, origin in origins.items()}


def came(origins: dict[str, Origin]) -> tuple[str, Request] | None:
    """The only request since the last time, and who got it."""
    all = [(name, origin.requests.pop()) for name, origin in origins.items() if origin.requests]
    assert len(all) < 2
    return all[0] if all else None


ROUTES = [
    {"path": "/exact", "upstream": "one"},
    {"hosts": ["api.example.com"], "prefix": "/v1/", "prefix_rewrite": "/", "upstream": "two"},
    {"hosts": ["*.example.com", "[::1]"], "prefix": "/sub", "prefix_rewrite": "/deep/er", "upstream": "one"},
    {"hosts": ["API.example.com"], "upstream": "two", "host_rewrite": "inside:81"},
    {"regex": "/users/[0-9]+", "upstream": "one"},
    {"prefix": "/post", "methods": ["POST", "PUT"], "upstream": "one"},
    {"prefix": "/post", "upstream": "two"},
    {"headers": {"X-Version": "2"}, "upstream": "two", "prefix_rewrite": "/v2"},
]


def test_the_first_route_that_fits(serve, origins):
    origins = origins("one two")
    served = serve(settings={"upstreams": upstreams(origins), "routes": ROUTES}, upstream=None)

    def ask(method: str, target: str, host: str = "", **headers: str) -> str:
        given = {**({"host": host} if host else {}), **{name.replace("_", "-"): headers[name] for name in headers}}
        response = httpx2.request(method, served.url + target, headers=given)
        if response.status_code != 200:
            assert came(origins) is None
            return f"{response.status_code} {response.text}"
        name, request = came(origins)
        own = served.url.removeprefix("http://")
        return " ".join((name, request.target, *(request["host"],) * (request["host"] not in (own, host))))

    assert ask("GET", "/exact?a=b") == "one /exact?a=b"
    assert ask("GET", "/exact/") == "404 "
    assert ask("GET", "/v1/x?y", "api.example.com") == "two /x?y"
    assert ask("GET", "/v1/x?y", "API.example.com:8080") == "two /x?y"
    assert ask("GET", "/v1/x", "other.example.com") == "404 "
    assert ask("GET", "/subway?q", "a.b.example.com") == "one /deep/erway?q"
    assert ask("GET", "/sub", "[::1]:80") == "one /deep/er"
    assert ask("GET", "/sub", "example.com") == "404 "
    assert ask("GET", "/else", "api.example.com") == "two /else inside:81"
    assert ask("GET", "/users/17?q") == "one /users/17?q"
    assert ask("GET", "/users/17/x") == "404 "
    assert ask("POST", "/post") == "one /post"
    assert ask("GET", "/post") == "two /post"
    assert ask("GET", "/any", x_version="2") == "two /v2/any"
    assert ask("GET", "/any", x_version="3") == "404 "


def test_what_is_not_routed_is_told(serve, origins):
    origins = origins("one")
    routes = [{"name": "by header", "prefix": "/to", "cluster_header": "x-to"}]
    served = serve(settings={"upstreams": upstreams(origins), "routes": routes}, upstream=None, access_log="json")
    assert served.get("/elsewhere").status_code == 404
    assert served.get("/to", headers={"x-to": "two"}).status_code == 503
    assert served.get("/to").status_code == 503
    assert served.get("/to", headers={"x-to": "one"}).status_code == 200
    assert served.stop() == 0
    address = f"127.0.0.1:{origins['one'].port}"
    assert [
        tuple(map(json.loads(line).get, ("status", "details", "route", "upstream"))) for line in served.access_log
    ] == [
        (404, "route_not_found", None, None),
        (503, "cluster_not_found", "by header", None),
        (503, "cluster_not_found", "by header", None),
        (200, None, "by header", address),
    ]


def test_each_route_has_its_filters(serve, origins):
    origins = origins("one")

    def adds(value: str) -> dict[str, str]:
        return {"file": HEADERS, "configuration": value}

    routes = [
        {"prefix": "/a", "upstream": "one", "filters": [adds("a")]},
        {"prefix": "/b", "upstream": "one", "filters": [{"file": AUTH, "configuration": "t"}, adds("b")]},
        {"prefix": "/c", "upstream": "one"},
    ]
    settings = {"upstreams": upstreams(origins), "filters": [adds("all")], "routes": routes}
    served = serve(settings=settings, upstream=None)

    def added(path: str, **headers: str) -> list[str]:
        served.get(path, headers=headers)
        _, request = came(origins)
        return [value for name, value in request.headers if name == "x-wasm"]

    assert added("/a") == ["all", "a"]
    assert served.get("/b").status_code == 401
    assert added("/b", authorization="Bearer t") == ["all", "b"]
    assert added("/c") == ["all"]
    assert served.get("/d").headers["x-wasm"] == "all"
    assert [filter["name"] for filter in served.live()["workers"][0]["chain"]] == [
        "headers-1",
        "headers-2",
        "auth",
        "headers-4",
    ]


def test_a_filter_chooses_by_header_and_by_host(serve, origins):
    """A route is looked for once more with what came out of the filters, as in Envoy."""
    origins = origins("one two three")
    routes = [
        {"headers": {"x-wasm": "blue"}, "upstream": "two"},
        {"hosts": ["moved.example"], "upstream": "three"},
        {"prefix": "/blue", "upstream": "one", "filters": [{"file": HEADERS, "configuration": "blue"}]},
        {
            "prefix": "/host",
            "upstream": "one",
            "filters": [
                {
                    "file": PROBE,
                    "configuration": "@on_request_headers\nreplace_header_map_value 0 :authority moved.example\n",
                }
            ],
        },
        {
            "prefix": "/to",
            "cluster_header": "x-wasm",
            "filters": [{"file": HEADERS, "configuration": "three"}],
        },
        {"upstream": "one"},
    ]
    served = serve(settings={"upstreams": upstreams(origins), "routes": routes}, upstream=None)

    def goes(path: str) -> str:
        assert served.get(path).status_code == 200
        return came(origins)[0]

    assert goes("/") == "one"
    assert goes("/blue") == "two"
    assert goes("/host") == "three"
    assert goes("/to") == "three"


def test_a_filter_of_higress_keeps_the_route_or_chooses_the_server(serve, origins):
    origins = origins("one two three")
    one, two, three = origins.values()

    def probe(script: str) -> list[dict[str, str]]:
        return [{"file": PROBE_OF_HIGRESS, "configuration": f"@on_request_headers\n{script}"}]

    to_two = f"set_upstream_override_host 127.0.0.1:{two.port}\n"
    routes = [
        {"hosts": ["moved.example"], "upstream": "three"},
        {
            "prefix": "/moved",
            "upstream": "pair",
            "filters": probe("replace_header_map_value 0 :authority moved.example\n"),
        },
        {
            "prefix": "/stays",
            "upstream": "pair",
            "filters": probe(
                "set_property clear_route_cache off\nreplace_header_map_value 0 :authority moved.example\n"
            ),
        },
        {"prefix": "/two", "upstream": "pair", "filters": probe(to_two)},
        {"prefix": "/none", "upstream": "pair", "filters": probe("set_upstream_override_host 192.0.2.1:1\n")},
    ]
    settings = {
        "upstreams": {"pair": {"servers": [one.url, two.url]}, "three": three.url},
        "routes": routes,
    }
    served = serve(settings=settings, upstream=None)

    def goes(path: str) -> str:
        assert served.get(path).status_code == 200
        return came(origins)[0]

    assert goes("/moved") == "three"
    assert {goes("/stays") for _ in range(2)} == {"one", "two"}
    assert {goes("/two") for _ in range(4)} == {"two"}
    assert {goes("/none") for _ in range(2)} == {"one", "two"}, "a server that is none of the upstream's"


def test_a_filter_has_configurations_of_its_own_for_some_requests(serve, origins, tmp_path):
    """Its place in the chain, and those of others, stay. A file that only a rule names is watched, too."""
    origins = origins("one two")
    says = "@on_request_headers\nadd_header_map_value 0 x-said {}\n"
    probe = {
        "file": PROBE,
        "configuration": says.format("all"),
        "rules": [
            {"hosts": ["a.example"], "unless": [{"paths": ["/not"]}], "configuration_file": str(tmp_path / "a.txt")},
            {"routes": ["quiet-*"], "disabled": True},
            {"clusters": ["two"], "configuration": says.format("two")},
        ],
    }
    routes = [
        {"name": "quiet-1", "prefix": "/quiet", "upstream": "one", "filters": [HEADERS]},
        {"prefix": "/two", "upstream": "two", "filters": [{"file": HEADERS, "match": {"paths": ["*/x"]}}]},
        {"upstream": "one"},
    ]
    file = tmp_path / "a.txt"
    file.write_text(says.format("a"))
    served = serve(
        settings={"upstreams": upstreams(origins), "routes": routes, "filters": [probe, probe]}, upstream=None, watch=True
    )

    def said(path: str, host: str = "b.example") -> tuple[str, str | None]:
        assert served.get(path, headers={"host": host}).status_code == 200
        _, request = came(origins)
        return ",".join(value for name, value in request.headers if name == "x-said"), request["x-wasm"]

    assert said("/") == ("all,all", None)
    assert said("/", "a.example:80") == ("a,a", None)
    assert said("/not", "a.example") == ("all,all", None)
    assert said("/quiet") == ("", "hello")
    assert said("/two") == ("two,two", None)
    assert said("/two/x?y") == ("two,two", "hello")
    file.write_text(says.format("b"))
    assert served.wait_for("loaded the changes")
    assert said("/", "a.example") == ("b,b", None)


def test_filters_read_where_a_request_goes(serve, origins):
    origins = origins("one")
    asked = [
        "xds.route_name",
        "xds.virtual_host_name",
        "xds.cluster_name",
        "upstream.address",
        "upstream.port",
        "response.flags",
    ]
    filters = [{"file": PROPERTIES, "configuration": "\n".join(asked)}]
    routes = [{"name": "r1", "virtual_host": "v1", "upstream": "one", "filters": filters}]
    served = serve(settings={"upstreams": upstreams(origins), "routes": routes}, upstream=None)
    served.get("/")
    told = dict(
        line.rpartition("properties: ")[2].split(" = ")
        for line in served.log.splitlines()
        if " = " in line.rpartition("properties: ")[2]
    )
    address, port = f"127.0.0.1:{origins['one'].port}", origins["one"].port
    assert {name: bytes.fromhex(value) for name, value in told.items()} == {
        "request: xds.route_name": b"r1",
        "request: xds.virtual_host_name": b"v1",
        "request: xds.cluster_name": b"one",
        "request: response.flags": bytes(8),
        "response: xds.route_name": b"r1",
        "response: xds.virtual_host_name": b"v1",
        "response: xds.cluster_name": b"one",
        "response: upstream.address": address.encode(),
        "response: upstream.port": port.to_bytes(8, "little"),
        "response: response.flags": bytes(8),
    }


def test_filters_read_why_there_is_no_answer(serve):
    script = """@on_response_headers
get_property upstream%00address
get_property upstream%00request_attempt_count
get_property upstream%00transport_failure_reason
get_property response%00flags
get_property response%00code_details
"""
    port, filters = closed_port(), [{"file": PROBE, "configuration": script}]
    upstream = {"url": f"http://127.0.0.1:{port}", "retry": {"retry_on": ["connect-failure"], "base_interval": 0.001}}
    routes = [{"path": "/here", "upstream": "gone", "filters": filters}]
    settings = {"upstreams": {"gone": upstream}, "routes": routes, "filters": filters}
    served = serve(settings=settings, upstream=None)

    def told(path: str) -> list[str]:
        before = len(served.log)
        served.get(path)
        return re.findall(r"get_property\(\w+%00(\w+)\) = (.*)", served.log[before:])

    assert told("/here")[:5] == [
        ("address", f'0 "127.0.0.1:{port}"'),
        ("request_attempt_count", '0 "%02%00%00%00%00%00%00%00"'),
        ("transport_failure_reason", '0 "Connection refused (os error 111)"'),
        ("flags", '0 " %80%00%00%00%00%00%00"'),  # UF and URX
        ("code_details", '0 "upstream_reset_before_response_started{remote_connection_failure}"'),
    ]
    assert told("/elsewhere")[-2:] == [
        ("flags", '0 "%00%01%00%00%00%00%00%00"'),
        ("code_details", '0 "route_not_found"'),
    ]


def test_routes_that_answer_by_themselves_do_so_through_the_filters(serve, origins):
    origins = origins("one")
    routes = [
        {"path": "/moved", "redirect": {"host": "example.org", "scheme": "https"}},
        {"prefix": "/old/", "redirect": {"prefix_rewrite": "/new/", "port": 8443, "status": 308}},
        {"path": "/all", "redirect": {"path": "/one?x", "strip_query": True, "status": 302}},
        {"path": "/says", "direct_response": {"status": 418, "body": "A teapot."}},
        {"path": "/quiet", "direct_response": {"status": 204}},
        {"upstream": "one"},
    ]

    for filters in ([], [HEADERS]):
        served = serve(settings={"upstreams": upstreams(origins), "routes": routes, "filters": filters}, upstream=None)

        def ask(target: str, served=served, filters=filters) -> tuple[int, str | None, str]:
            response = httpx2.get(served.url + target, headers={"host": "example.com:80"})
            assert (response.headers.get("x-wasm") is not None) is bool(filters)
            return response.status_code, response.headers.get("location"), response.text

        assert ask("/moved?a=b") == (301, "https://example.org/moved?a=b", "")
        assert ask("/old/x?a") == (308, "http://example.com:8443/new/x?a", "")
        assert ask("/all?b") == (302, "http://example.com:80/one?x", "")
        assert ask("/says") == (418, None, "A teapot.")
        assert ask("/quiet") == (204, None, "")
        assert came(origins) is None


def test_upstreams_get_their_shares(serve, origins):
    origins = origins("one two three")
    weighted = {"one": 3, "two": 1, "three": 0}
    served = serve(settings={"upstreams": upstreams(origins), "routes": [{"weighted": weighted}]}, upstream=None)
    with httpx2.Client() as client:
        for _ in range(200):
            assert client.get(served.url).status_code == 200
    got = {name: len(origin.requests) for name, origin in origins.items()}
    assert got["three"] == 0
    assert sum(got.values()) == 200
    assert 100 < got["one"] < 190  # 150, and the chance of missing it is that of six standard deviations

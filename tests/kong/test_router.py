"""Kong's traditional router, as ``kong/router/traditional.lua`` chooses and as its documentation says."""

from __future__ import annotations

import pytest

from proxywasm_host.kong.context import Headers
from proxywasm_host.kong.router import Match, Router, normalize


def chosen(routes: dict[str, dict], request: str, host: str = "example.com", **headers: str) -> str | None:
    router = Router({"name": name, **route} for name, route in routes.items())
    method, path = request.split()
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    match = router.match(method, normalize(path), host, Headers(pairs))
    return match and match.route["name"]


@pytest.mark.parametrize(
    ("routes", "request_line", "host", "expected"),
    [
        ({"a": {"paths": ["/a"]}, "ab": {"paths": ["/a/b"]}}, "GET /a/b/c", "x", "ab"),
        ({"a": {"paths": ["/a"]}, "m": {"paths": ["/"], "methods": ["GET"]}}, "GET /a", "x", "m"),
        ({"p": {"paths": ["/"]}, "h": {"hosts": ["x"]}}, "GET /a", "x", "h"),
        ({"w": {"hosts": ["*.x.com"]}, "h": {"hosts": ["a.x.com"]}}, "GET /", "a.x.com", "h"),
        ({"w": {"hosts": ["*.x.com"]}, "wp": {"hosts": ["*.x.com:8000"]}}, "GET /", "a.x.com:8000", "wp"),
        ({"w": {"hosts": ["x.*"]}}, "GET /", "x.org:1", "w"),
        ({"w": {"hosts": ["*.x.com"]}}, "GET /", "x.com", None),
        ({"p": {"paths": ["/long/prefix"]}, "r": {"paths": [r"~/\w+"]}}, "GET /long/prefix", "x", "r"),
        ({"r1": {"paths": [r"~/\w+"]}, "r2": {"paths": [r"~/a\w*"], "regex_priority": 5}}, "GET /abc", "x", "r2"),
        ({"a": {"paths": ["/a"], "methods": ["POST"]}}, "GET /a", "x", None),
        ({"a": {"hosts": ["x:81"]}, "b": {"paths": ["/"]}}, "GET /", "x:81", "a"),
        ({"a": {"hosts": ["x:80"]}, "b": {"paths": ["/"]}}, "GET /", "x", "a"),
        ({"first": {"paths": ["/a"]}, "second": {"paths": ["/a"]}}, "GET /a", "x", "first"),
        ({"a": {"paths": ["/b"]}}, "GET /a/%2e%2e/b", "x", "a"),
    ],
)
def test_the_route_of_a_request(routes, request_line, host, expected):
    assert chosen(routes, request_line, host) == expected


def test_headers_choose_in_any_case_and_by_expression():
    routes = {
        "one": {"paths": ["/"], "headers": {"X-Version": ["v2", "V3"]}},
        "two": {"paths": ["/"], "headers": {"X-Version": ["v2"], "X-Other": ["~*^a+$"]}},
        "none": {"paths": ["/"]},
    }
    assert chosen(routes, "GET /", x_version="V2", x_other="aaa") == "two"
    assert chosen(routes, "GET /", x_version="v3", x_other="b") == "one"
    assert chosen(routes, "GET /", x_version="v1") == "none"


@pytest.mark.parametrize(
    ("route", "base", "path", "upstream"),
    [
        # As the table of Kong's documentation of path handling has them: service path, route path, request, upstream.
        *(({"strip_path": True, "paths": [path]}, base, request, expected) for base, path, request, expected in [
            ("/s", "/fv0", "/fv0/req", "/s/req"),
            ("/s", "/fv0", "/fv0req", "/s/req"),
            ("/s/", "/fv0/", "/fv0/req", "/s/req"),
            ("/s", "/fv0/", "/fv0/req", "/s/req"),
            ("/", "/a", "/a", "/"),
            ("/s", "/a", "/a", "/s"),
            ("/s/", "/a/", "/a/", "/s/"),
            ("/s", "/a", "/a/", "/s/"),
        ]),
        *(({"strip_path": False, "paths": [path]}, base, request, expected) for base, path, request, expected in [
            ("/s", "/a", "/a/req", "/s/a/req"),
            ("/s/", "/a", "/a/req", "/s/a/req"),
            ("/", "/", "/", "/"),
            ("/s", "/", "/", "/s"),
        ]),
        ({"strip_path": True, "paths": ["/fv1"], "path_handling": "v1"}, "/s", "/fv1/req", "/s/req"),
        ({"strip_path": True, "paths": ["/fv1"], "path_handling": "v1"}, "/s", "/fv1req", "/sreq"),
        ({"strip_path": False, "paths": ["/fv1"], "path_handling": "v1"}, "/s", "/fv1/req", "/sfv1/req"),
        ({"strip_path": True, "paths": [r"~/v(?<n>\d+)"]}, "/s", "/v12/x", "/s/x"),
        ({"strip_path": True, "hosts": ["example.com"]}, "/s", "/x", "/s/x"),
        ({"strip_path": True, "paths": ["/a"]}, "/s", "/a..", "/s"),
    ],
)  # fmt: skip
def test_the_path_that_goes_upstream(route, base, path, upstream):
    match = Router([route]).match("GET", path, "example.com", Headers([]))
    assert match.upstream_path(base, path) == upstream


def test_captures():
    match = Router([{"paths": [r"~/users/(?<user>\w+)/(\d+)"]}]).match("GET", "/users/bob/12/x", "h", Headers([]))
    assert match == Match({"paths": [r"~/users/(?<user>\w+)/(\d+)"]}, "/users/bob/12", "/x", {"user": "bob"}, ("bob", "12"))


@pytest.mark.parametrize(
    ("path", "normal"),
    [("", "/"), ("/a//b", "/a/b"), ("/a/./b/../c", "/a/c"), ("/%61%2f%7e", "/a%2F~"), ("/a/..", "/"), ("/../..", "/"), ("/a/.", "/a/")],
)
def test_normal_form(path, normal):
    assert normalize(path) == normal


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("~/(", r"'/\(' is not a regular expression: missing \)"),
        ("~/(?=x)", r"'/\(\?=x\)' is not a regular expression: invalid perl operator: \(\?="),
    ],
)
def test_an_expression_that_is_none(path, said):
    with pytest.raises(ValueError, match=said):
        Router([{"paths": [path]}])


@pytest.mark.parametrize("expression", ["~/(a+)+$", "~/(a|a)*$", "~/(.*)*a.*b.*c.*d.*$"])
def test_a_hostile_path_takes_no_time_that_grows_with_a_power_of_it(expression):
    """Python's own expressions would not end before the tests do."""
    router = Router([{"paths": [expression]}, {"hosts": ["*.example.com"]}])
    assert router.match("GET", "/" + "a" * 8192 + "!", "a" * 8192, Headers([])) is None

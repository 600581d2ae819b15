"""transformer: headers, query and body by rules, in either direction."""

from __future__ import annotations

import pytest

FORM = "application/x-www-form-urlencoded"


def test_headers_of_the_request(load, exchange):
    plugin = load(
        "transformer",
        reqRules=[
            {"operate": "remove", "headers": [{"key": "X-Remove"}]},
            {"operate": "rename", "headers": [{"oldKey": "x-old", "newKey": "x-new"}]},
            {"operate": "replace", "headers": [{"key": "x-replace", "newValue": "after"}]},
            {"operate": "add", "headers": [{"key": "x-add", "value": "$1-api", "host_pattern": "^(.*)\\.com$"}]},
            {"operate": "append", "headers": [{"key": "x-append", "appendValue": "second"}]},
            {"operate": "map", "headers": [{"fromKey": "x-from", "toKey": "x-to"}]},
            {"operate": "dedupe", "headers": [{"key": "x-dedupe", "strategy": "RETAIN_UNIQUE"}]},
        ],
    )

    seen = exchange(plugin).request(
        "/get", x_remove="1", x_old="2", x_replace="before", x_append="first", x_from="3", x_kept="4"
    )

    headers = seen.upstream.headers
    assert {name: value for name, value in headers.items() if name.startswith("x-")} == {
        "x-new": "2",
        "x-replace": "after",
        "x-add": "example-api",
        "x-append": "first, second",
        "x-from": "3",
        "x-to": "3",
        "x-kept": "4",
    }
    assert (headers[":method"], headers[":path"], headers[":authority"]) == ("GET", "/get", "example.com")


def test_repeated_headers_lose_their_doubles(load, exchange):
    plugin = load(
        "transformer",
        reqRules=[{"operate": "dedupe", "headers": [{"key": "x-many", "strategy": "RETAIN_UNIQUE"}]}],
    )
    seen = exchange(plugin)

    pairs = [(b":authority", b"a"), (b":path", b"/"), (b":method", b"GET"), (b":scheme", b"http")]
    (effect,) = seen.stream.request_headers([*pairs, *[(b"x-many", value) for value in (b"1", b"2", b"1")]], True)

    assert [value for name, value in effect.headers if name == b"x-many"] == [b"1", b"2"]


def test_the_query(load, exchange):
    plugin = load(
        "transformer",
        reqRules=[
            {"operate": "remove", "querys": [{"key": "secret"}]},
            {"operate": "add", "querys": [{"key": "page", "value": "1"}]},
        ],
    )

    seen = exchange(plugin).request("/list?kept=a%20b&secret=s")

    path, _, query = seen.upstream.headers[":path"].partition("?")
    assert path == "/list"
    assert sorted(query.split("&")) == ["kept=a+b", "page=1"]


@pytest.fixture
def mapper(load):
    return load(
        "transformer",
        reqRules=[
            {"operate": "map", "mapSource": "body", "headers": [{"fromKey": "user.id", "toKey": "x-user-id"}]},
        ],
    )


def test_a_header_from_the_body(mapper, exchange):
    seen = exchange(mapper).request("/", {"user": {"id": 12, "name": "johnlanni"}}, end=False)
    assert not seen.forwarded, "the headers wait for the body"

    seen.part()

    assert seen.upstream.headers["x-user-id"] == "12"
    assert seen.upstream.json == {"user": {"id": 12, "name": "johnlanni"}}


def test_a_header_from_a_body_in_parts(mapper, exchange):
    seen = exchange(mapper).request("/", b'{"user": {"i', content_type="application/json", end=False)
    seen.part(b'd": 3}}')

    assert seen.upstream.headers["x-user-id"] == "3"
    assert seen.upstream.body == b'{"user": {"id": 3}}'


def test_the_json_of_a_request(load, exchange):
    plugin = load(
        "transformer",
        reqRules=[
            {"operate": "remove", "body": [{"key": "secret"}]},
            {"operate": "rename", "body": [{"oldKey": "a", "newKey": "b"}]},
            {"operate": "replace", "body": [{"key": "c.d", "newValue": "2", "value_type": "number"}]},
            {"operate": "add", "body": [{"key": "e", "value": "true", "value_type": "boolean"}]},
        ],
    )

    seen = exchange(plugin).request("/", {"secret": 1, "a": [1, 2], "c": {"d": 1, "kept": None}})

    assert seen.upstream.json == {"b": [1, 2], "c": {"d": 2, "kept": None}, "e": True}
    assert "content-length" not in seen.upstream.headers


def test_the_form_of_a_request(load, exchange):
    plugin = load("transformer", reqRules=[{"operate": "add", "body": [{"key": "b", "value": "two words"}]}])

    seen = exchange(plugin).request("/", b"a=1", content_type=FORM)

    assert sorted(seen.upstream.body.split(b"&")) == [b"a=1", b"b=two+words"]


def test_the_response(load, exchange):
    plugin = load(
        "transformer",
        respRules=[
            {
                "operate": "add",
                "headers": [{"key": "x-added", "value": "1"}],
                "body": [{"key": "ok", "value": "true", "value_type": "boolean"}],
            },
            {"operate": "replace", "headers": [{"key": "server", "newValue": "gateway"}]},
        ],
    )

    seen = exchange(plugin).request("/").respond({"a": 1}, server="up")

    assert seen.client.headers["x-added"] == "1"
    assert seen.client.headers["server"] == "gateway"
    assert "content-length" not in seen.client.headers
    assert seen.client.json == {"a": 1, "ok": True}


def test_a_response_that_is_no_json_keeps_its_body(load, exchange):
    plugin = load("transformer", respRules=[{"operate": "add", "body": [{"key": "ok", "value": "1"}]}])

    seen = exchange(plugin).request("/").respond([b"<p>", b"</p>"], content_type="text/html")

    assert seen.client.chunks == [b"<p>", b"</p>"]

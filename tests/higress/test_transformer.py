"""transformer: headers, query and body by rules, in either direction."""

from __future__ import annotations

import json

import pytest

from proxywasm_host.testing import Response

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


def test_headers_of_the_request(filter):
    transformer = filter(
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
    given = {"x-remove": "1", "x-old": "2", "x-replace": "before", "x-append": "first", "x-from": "3", "x-kept": "4"}

    got = transformer.get("/get", given).upstream

    assert {name: got.headers[name] for name in got.headers} == {
        "x-new": "2",
        "x-replace": "after",
        "x-add": "example-api",
        "x-append": "first, second",
        "x-from": "3",
        "x-to": "3",
        "x-kept": "4",
    }
    assert (got.method, got.path, got.authority) == ("GET", "/get", "example.com")


def test_repeated_headers_lose_their_doubles(filter):
    transformer = filter(
        "transformer",
        reqRules=[{"operate": "dedupe", "headers": [{"key": "x-many", "strategy": "RETAIN_UNIQUE"}]}],
    )
    got = transformer.get("/", [("x-many", "1"), ("x-many", "2"), ("x-many", "1")]).upstream
    assert got.headers.get_all("x-many") == ["1", "2"]


def test_the_query(filter):
    transformer = filter(
        "transformer",
        reqRules=[
            {"operate": "remove", "querys": [{"key": "secret"}]},
            {"operate": "add", "querys": [{"key": "page", "value": "1"}]},
        ],
    )
    path, _, query = transformer.get("/list?kept=a%20b&secret=s").upstream.path.partition("?")
    assert path == "/list"
    assert sorted(query.split("&")) == ["kept=a+b", "page=1"]


@pytest.mark.parametrize("chunks", [[b'{"user": {"id": 12}}'], [b'{"user": {"i', b'd": 12}}']])
def test_a_header_from_the_body(filter, chunks):
    """The headers wait for the body, however it is cut."""
    rule = {"operate": "map", "mapSource": "body", "headers": [{"fromKey": "user.id", "toKey": "x-user-id"}]}
    transformer = filter("transformer", reqRules=[rule])
    with transformer.stream("POST", "/", JSON, chunks=chunks) as stream:
        stream.request_headers()
        assert stream.result.upstream is None
    got = transformer.post("/", JSON, chunks=chunks).upstream
    assert got.headers["x-user-id"] == "12"
    assert got.json() == {"user": {"id": 12}}


def test_the_json_of_a_request(filter):
    transformer = filter(
        "transformer",
        reqRules=[
            {"operate": "remove", "body": [{"key": "secret"}]},
            {"operate": "rename", "body": [{"oldKey": "a", "newKey": "b"}]},
            {"operate": "replace", "body": [{"key": "c.d", "newValue": "2", "value_type": "number"}]},
            {"operate": "add", "body": [{"key": "e", "value": "true", "value_type": "boolean"}]},
        ],
    )
    body = json.dumps({"secret": 1, "a": [1, 2], "c": {"d": 1, "kept": None}})
    got = transformer.post("/", {**JSON, "content-length": str(len(body))}, body).upstream
    assert got.json() == {"b": [1, 2], "c": {"d": 2, "kept": None}, "e": True}
    assert "content-length" not in got.headers


def test_the_form_of_a_request(filter):
    transformer = filter("transformer", reqRules=[{"operate": "add", "body": [{"key": "b", "value": "two words"}]}])
    assert sorted(transformer.post("/", FORM, "a=1").upstream.text.split("&")) == ["a=1", "b=two+words"]


def test_the_response(filter):
    transformer = filter(
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
    transformer.upstream = Response(200, {**JSON, "server": "up", "content-length": "8"}, '{"a": 1}')
    response = transformer.get("/").response
    assert response.headers == {**JSON, "x-added": "1", "server": "gateway"}
    assert response.json() == {"a": 1, "ok": True}


def test_a_response_that_is_no_json_keeps_its_body(filter):
    transformer = filter("transformer", respRules=[{"operate": "add", "body": [{"key": "ok", "value": "1"}]}])
    transformer.upstream = Response(200, {"content-type": "text/html"}, chunks=[b"<p>", b"</p>"])
    assert transformer.get("/").response.chunks == [b"<p>", b"</p>"]

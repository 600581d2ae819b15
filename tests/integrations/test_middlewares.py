"""What both middlewares do with a request and its response; what one of them does alone is in the tests of each."""

from __future__ import annotations

from socket import gethostname

import pytest

from proxywasm_host import Match, Rule, by_rule
from proxywasm_host.integrations.asgi import Filter
from proxywasm_host.integrations.exchange import StreamReset
from tests.integrations.middlewares import Application
from tests.support import code

ENDS = "@on_log\nsay log\n@on_done\nsay done\n@on_delete\nsay delete\n"
ENDED = ["log", "done", "delete"]
LOCAL = "send_local_response 418 tea short%20and%20stout x-local=1 -1\n"
SHORTER = "@on_{0}_body\nset_buffer_bytes {1} 0 1000 short\n"


def test_headers_pass_the_filter_both_ways(carry):
    application = Application(headers=[("Content-Length", "6"), ("Server", "app")])
    served = carry(Filter(code("rust/headers"), configuration="from Rust"), application=application)
    answer = served.get(target="/a?c=d", headers=[("x-remove-me", "1"), ("x-two", "a"), ("x-two", "b")])
    [seen] = application.seen
    assert (seen.path, seen.query) == ("/a", "c=d")
    assert (seen.headers["x-wasm"], seen.headers.get("x-remove-me")) == ("from Rust", None)
    assert (answer.status, answer["server"], answer["content-length"]) == (200, "proxy-wasm", "6")
    assert answer.body == b"Hello."


def test_a_filter_is_configured_for_hosts_paths_and_routes(carry):
    application = Application()
    headers = Filter(code("rust/headers"), configuration="all")
    rules = [Rule(Match(hosts=["a.example"]), "a"), Rule(Match(paths=["/off"]), None), Rule(Match(routes=["r"]), "r")]
    served = carry(by_rule(headers, rules), application=application, properties={"route_name": "r"})
    served.answers(
        {"headers": [("host", "A.example:80")]},
        {"target": "/off?x", "headers": [("host", "b.example")]},
        {"target": "/offer", "headers": [("host", "b.example")]},
        {"target": "http://a.example/off", "headers": [("host", "b.example")]},
    )
    assert [seen.headers.get("x-wasm") for seen in application.seen] == ["a", None, "r", "a"]


@pytest.mark.parametrize(("name", "body"), [("rust/body", b'{"A": 1}'), ("go/body", b'{"a":1,"seen":true}')])
def test_a_body_is_rewritten_as_a_whole(carry, name, body):
    answer = carry(Filter(code(name)), application=Application(headers=[], echo=True)).get("POST", body=b'{"a": 1}')
    assert answer.body == body


def test_a_body_that_does_not_fit(carry):
    answer = carry(Filter(code("rust/body")), buffer_limit=10).get("POST", body=b"x" * 100_000)
    assert (answer.status, answer.body) == (413, b"Payload Too Large")


def test_content_length_is_corrected(carry):
    application = Application(headers=[("content-length", "11")], chunks=(b"a long body",))
    served = carry(SHORTER.format("request", 0) + SHORTER.format("response", 1), application=application)
    answer = served.get("POST", body=b"a long body")
    [seen] = application.seen
    assert (seen.headers["content-length"], seen.body[:5]) == (str(len(seen.body)), b"short")
    assert (answer["content-length"], answer.body[:5]) == (str(len(answer.body)), b"short")


def test_content_length_is_left_alone_where_no_filter_can_change_bodies(carry):
    application = Application(headers=[("content-length", "11")], chunks=(b"a long", b" body"))
    assert carry(Filter(code("go/headers")), application=application).get()["content-length"] == "11"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_responses_without_a_body(carry, log, method, status):
    application = Application(status, [("content-length", "11"), ("etag", "x")], (b"a long body",))
    answer = carry("@on_response_headers\n@on_response_body\nsay body\n", application=application).get(method)
    assert (answer.status, answer["etag"], answer.body) == (status, "x", b"")
    assert answer["content-length"] == ("11" if method == "HEAD" else None)
    assert log.take() == []


@pytest.mark.carries("wsgi", "local responses")
def test_a_local_response_instead_of_the_application(carry, log):
    served = carry("@on_request_headers\n" + LOCAL + ENDS)
    answer = served.get()
    assert (answer.status, answer["x-local"], answer.body) == (418, "1", b"short and stout")
    assert served.application.seen == []
    assert log.take()[1:4] == ENDED


def test_a_local_response_instead_of_the_response(carry):
    answer = carry("@on_response_headers\n" + LOCAL).get()
    assert (answer.status, answer.body) == (418, b"short and stout")


def test_a_local_response_after_the_response_has_begun_cuts_it(carry):
    application = Application(headers=[], chunks=(b"one", b"two"))
    with pytest.raises(StreamReset, match="tea"):
        carry("@on_response_body/2\n" + LOCAL, application=application).get()


def test_a_filter_that_closes_the_stream(carry):
    answer = carry("@on_request_headers\nclose_stream 0\n").get()
    assert (answer.status, answer.body) == (503, b"")


def test_a_guest_that_fails_for_ever(carry):
    trap = Filter(code("rust/panics"), configuration="trap:request_headers")
    assert carry(trap).ask({}, {}) == [503, 503]


def test_an_application_that_fails(carry, log):
    with pytest.raises(ValueError, match="of the application"):
        carry("@on_request_headers\n" + ENDS, application=Application(error=ValueError("of the application"))).get()
    assert log.take()[:3] == ENDED


def test_the_name_of_the_machine_is_there_for_plugins(carry, log):
    carry("@on_configure\nget_property xds%00node%00id").get()
    assert [line.partition(" = ")[2] for line in log.take()] == [f'0 "{gethostname()}"']

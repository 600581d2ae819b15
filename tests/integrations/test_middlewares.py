"""What both middlewares do with a request and its response; what one of them does alone is in the tests of each."""

from __future__ import annotations

import gc
from socket import gethostname

import pytest

from proxywasm_host import Match, Rule, by_rule
from proxywasm_host.integrations.asgi import Filter
from proxywasm_host.integrations.exchange import StreamReset
from proxywasm_host.runtime.effects import HttpCall, HttpCallReply
from tests.integrations.middlewares import Application
from tests.support import code

ENDS = "@on_log\nsay log\n@on_done\nsay done\n@on_delete\nsay delete\n"
ENDED = ["log", "done", "delete"]
LOCAL = "send_local_response 418 tea short%20and%20stout x-local=1 -1\n"
CALL = 'http_call upstream :method=GET&:path=/c&:authority=au "" "" 1000\n'
RESUME = "set_effective_context $stream\ncontinue_stream "
SHORTER = "@on_{0}_body\nset_buffer_bytes {1} 0 1000 short\n"


def test_headers_pass_the_filter_both_ways(carry, log):
    application = Application(headers=[("Content-Length", "6"), ("Server", "app")])
    served = carry(Filter(code("rust/headers"), configuration="from Rust"), application=application)
    answer = served.get(target="/a?c=d", headers=[("x-remove-me", "1"), ("x-two", "a"), ("x-two", "b")])
    [seen] = application.seen
    assert (seen.path, seen.query) == ("/a", "c=d")
    assert (seen.headers["x-wasm"], seen.headers.get("x-remove-me")) == ("from Rust", None)
    assert (answer.status, answer["server"], answer["content-length"]) == (200, "proxy-wasm", "6")
    assert (seen.headers["x-two"].replace(" ", ""), answer.body) == ("a,b", b"Hello.")
    assert log.take() == [
        "headers: configured, value from Rust",
        "headers: request for /a?c=d by -",
        "headers: response by app",
        "headers: done",
    ]


def test_what_a_filter_changes_is_what_the_application_gets(carry, log):
    script = """@on_request_headers
get_header_map_pairs 0
replace_header_map_value 0 :path /new%2520path?q=1
replace_header_map_value 0 :method PUT
replace_header_map_value 0 :authority other.example
remove_header_map_value 0 cookie
add_header_map_value 0 x-bytes %e4
"""
    served = carry(script)
    served.get(target="/old?p=2", headers=[("host", "example.com"), ("cookie", "a=1")])
    pairs = ":authority=example.com, :path=/old?p=2, :method=GET, :scheme=http, cookie=a=1"
    assert log.take()[0] == f"get_header_map_pairs(0) = 0 [{pairs}]"
    [seen] = served.application.seen
    assert (seen.method, seen.path, seen.query) == ("PUT", "/new path", "q=1")
    assert seen.headers == {"host": "other.example", "x-bytes": "ä"}


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


@pytest.mark.carries("asgi", "local responses")
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
    served = carry("@on_response_body/2\n" + LOCAL, application=application)
    with pytest.raises(StreamReset, match="tea"):
        served.get()
    assert (str(served.client.status)[:3], served.client.body) == ("200", b"one")


@pytest.mark.carries("asgi", "callouts")
@pytest.mark.carries("wsgi", "callouts")
@pytest.mark.parametrize("direction", [0, 1])
def test_a_pause_waits_for_its_callout(carry, log, direction):
    asked = []

    def idp(callout):
        asked.append((callout.cluster, len(served.application.seen), served.client.body))
        return HttpCallReply([(b":status", b"200")])

    async def async_idp(callout):
        return idp(callout)

    which = ("request", "response")[direction]
    script = f"@on_{which}_headers\n{CALL}return 1\n@on_http_call_response\n{RESUME}{direction}\n{ENDS}"
    clients = {"asgi": {HttpCall: async_idp}, "wsgi": {HttpCall: idp}}
    served = carry(script, clients=clients, clusters={"upstream": "http://upstream.example"})
    answer = served.get("POST", body=b"body")
    assert asked == [("upstream", direction, b"")]
    assert (answer.status, answer.body, served.application.seen[0].body) == (200, b"Hello.", b"body")
    lines = log.take()
    assert lines[lines.index("log") :][:3] == ENDED


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


def test_properties(carry, log):
    script = "@on_request_headers\n" + "".join(
        f"get_property {name}\n" for name in ("source%00address", "request%00protocol", "request%00path", "plugin_name", "route_name")
    )
    carry(script, properties=lambda request: {"route_name": request.get("path") or request["PATH_INFO"]}).get(target="/r")
    assert [line.partition(" = ")[2] for line in log.take()] == [
        '0 "192.0.2.1:4711"',
        '0 "HTTP/1.1"',
        '0 "/r"',
        '0 "probe"',
        '0 "/r"',
    ]


def test_properties_of_the_host_are_there_for_plugins(carry, log):
    script = "@on_configure\nget_property xds%00node%00id\nget_property xds%00cluster_name"
    carry(script, properties={"xds.node": {"id": "n1"}, "xds.cluster_name": "c1"}).get()
    assert [line.partition(" = ")[2] for line in log.take()] == ['0 "n1"', '0 "c1"']


def test_a_request_leaves_nothing_for_the_collector(carry):
    """What is in no cycle goes at once, and costs the collector nothing."""
    found = []

    class Collecting(Application):
        def answer(self, seen):
            if len(self.seen) % 10 == 0:
                found.append(gc.collect())  # at first, what others left: the start of a worker, and of its thread
            return super().answer(seen)

    served = carry(SHORTER.format("response", 1), application=Collecting(headers=[], echo=True))
    gc.disable()
    try:
        served.answers(*[{"method": "POST", "body": b"body"}] * 41)
    finally:
        gc.enable()
    assert (len(found), found[-1]) == (5, 0), found

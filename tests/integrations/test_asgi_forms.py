"""The exchange of a scope in its two forms: with what the C extension does of it, and without."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from proxywasm_host import Host
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.driver.dispatch import Dispatcher
from proxywasm_host.integrations.asgi import messages
from proxywasm_host.integrations.asgi.scope import TARGET, tells_the_end
from proxywasm_host.integrations.asynchronous import ResponseOver
from proxywasm_host.integrations.exchange import RequestHead
from tests.integrations.asgi import scope
from tests.support import code

SCRIPTS = (
    "",
    "@on_request_headers\nadd_header_map_value 0 a 1\n@on_response_headers\nadd_header_map_value 2 b 2\n",
    "@on_request_headers\nreplace_header_map_value 0 :path /other?x=%25\nreplace_header_map_value 0 :method PUT\n",
    "@on_request_headers\nreplace_header_map_value 0 :scheme https\n",
    "@on_response_headers\nreturn 1\n",
    "@on_response_body\nset_buffer_bytes 1 0 100 HELLO!!\n",
    "@on_response_headers\nsend_local_response 418 tea short a=b -1\n",
    "@on_request_headers\nsend_local_response 403 no no a=b -1\n",
)
SCOPES: tuple[dict[str, Any], ...] = (
    {},
    {"target": "/a?b=c&d"},
    {"target": "/a", "query_string": None},
    {"raw_path": None},
    {"raw_path": b"/a?b", "query_string": b"c"},
    {"path": "/\u00e4", "raw_path": b""},
    {"method": "HEAD"},
    {"method": "POST", "headers": [("content-length", "6")]},
    {"method": "POST", "headers": [("transfer-encoding", "chunked")]},
    {"method": "G\u00c9T"},
    {"method": "GET", "scheme": "https"},
    {"scheme": None},
    {"http_version": "1.0"},
    {"http_version": "2"},
    {"http_version": "1.0", "headers": [("x", "1")], "without": b"host"},
    {"extensions": {"http.response.pathsend": {}, "tls": {}}},
    {"extensions": None},
    {TARGET: b"/x?"},
    {"headers": [("connection", "close, x"), ("x", "1"), ("te", "gzip")]},
    {"headers": [("host", "a"), ("host", "b")]},
    {"headers": ()},
)
START, BODY, TRAILERS = "http.response.start", "http.response.body", "http.response.trailers"
LENGTH = [(b"content-length", b"6")]
STARTS: tuple[dict[str, Any], ...] = (
    {"type": START, "status": 200, "headers": LENGTH},
    {"type": START, "status": 200, "headers": ()},
    {"type": START, "status": 200},
    {"type": START, "status": 200, "headers": [[b"Content-Type", b"text/plain"], (b"x", bytearray(b" 1 "))]},
    {"type": START, "status": 204, "headers": LENGTH},
    {"type": START, "status": 304, "headers": LENGTH, "trailers": False},
    {"type": START, "status": 200, "headers": LENGTH, "trailers": True},
    {"type": START, "status": 999, "headers": []},
)
BODIES: tuple[dict[str, Any], ...] = (
    {"type": BODY, "body": b"Hello."},
    {"type": BODY, "body": b"Hello.", "more_body": True},
    {"type": BODY, "body": b"", "more_body": True},
    {"type": BODY, "body": bytearray(b"Hello."), "more_body": 1},
    {"type": BODY, "more_body": False},
    {"type": BODY},
    {"type": BODY, "body": memoryview(b"Hello.")},
    {"type": TRAILERS, "headers": [(b"T", b"1")], "more_trailers": False},
    {"type": "http.response.debug", "info": {}},
)


def made(of: dict[str, Any]) -> dict[str, Any]:
    """A scope; what is ``None`` is left out, and so are headers of the name `without`."""
    given = dict(of)
    method, target, headers = (given.pop(key, value) for key, value in (("method", "GET"), ("target", "/"), ("headers", ())))
    without = given.pop("without", None)
    whole = {**scope(method, target, headers), **given}
    whole["headers"] = [pair for pair in whole["headers"] if pair[0] != without]
    return {key: value for key, value in whole.items() if value is not None}


def life(driver: Dispatcher, plugin: Any, asked: dict[str, Any], sent: list[dict[str, Any]], fix: bool) -> list[Any]:
    """What came out of an exchange, step by step."""
    said: list[Any] = []
    stream = driver.host.http_stream([plugin])
    exchange = messages.exchange_of(driver, stream, asked, fix)
    before = dict(asked)
    if (target := messages.usual_begin(exchange, asked)) is not None:
        exchange.target = target
    else:
        exchange.begin_with(None, tells_the_end(asked))
    while exchange.to_upstream:
        head = exchange.to_upstream[0]
        if isinstance(head, RequestHead):
            said.append(exchange.upstream_scope(exchange.request_head()))
        said.append(exchange.for_application())
    for message in sent:
        try:
            passed = messages.usual_sent(exchange, message) if exchange.trailers is None else None
            if isinstance(passed, dict):
                said.append([passed])
            elif passed is None:
                said.append(exchange.from_application(message))
        except (ResponseOver, RuntimeError) as error:
            said.append(str(error))
        while exchange.to_client:
            said.append(exchange.for_server(exchange.to_client.popleft()))
        said.append((exchange.state, exchange.over, exchange.finished))
    exchange.close()
    assert asked == before, "a scope is the server's"
    # These are said in one form and not in the other:
    return [each for each in said if each not in (True, None)]


@pytest.fixture
def driver():
    with Host() as host:  # which engine it is does not matter here
        yield Dispatcher(host)


@pytest.mark.skipif(NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")
@pytest.mark.parametrize("seed", range(4))
def test_both_forms_do_the_same(driver, monkeypatch, seed):
    chance = Random(seed)
    plugins = [driver.host.load_plugin(code("c/probe_0_2_1"), configuration=script) for script in SCRIPTS]
    driver.perform(driver.host.drain())
    lives = [
        (chance.choice(plugins), made(of), [chance.choice(STARTS), *chance.choices(BODIES, k=3)], chance.random() < 0.8)
        for of in SCOPES * 6
    ]
    told = [life(driver, *each) for each in lives]
    for name in ("usual_begin", "usual_scope", "usual_sent"):
        monkeypatch.setattr(messages, name, messages.nothing)
    for number, each in enumerate(lives):
        assert life(driver, *each) == told[number], (each[1], each[2])


@pytest.mark.skipif(NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")
@pytest.mark.parametrize("asked", [{}, {"target": "/a?b"}, {"method": "DELETE", "http_version": "1.0"}])
def test_what_is_usual_is_done_in_c(driver, asked):
    plugin = driver.host.load_plugin(code("c/probe_0_2_1"), configuration=SCRIPTS[1])
    driver.perform(driver.host.drain())
    exchange = messages.exchange_of(driver, driver.host.http_stream([plugin]), made(asked), True)
    target = messages.usual_begin(exchange, exchange.scope)
    assert target == asked.get("target", "/").encode()
    head = exchange.request_head()
    assert messages.usual_scope(exchange.scope, target, head) == {**exchange.scope, "headers": head.headers}
    start, body = STARTS[1], BODIES[0]
    assert messages.usual_sent(exchange, start) == {**start, "headers": [(b"b", b"2")]}
    assert messages.usual_sent(exchange, body) == {**body, "more_body": False}
    exchange.close()


@pytest.mark.skipif(NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")
def test_what_is_no_exchange_is_refused():
    assert NATIVE is not None
    for wrong in (NATIVE.asgi_begin, NATIVE.asgi_sent):
        with pytest.raises(TypeError):
            wrong(None, {})
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError):
        NATIVE.asgi_scope({})

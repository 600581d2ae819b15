"""Filters that hold a message until something else happens, and then let it go on, through ``serve`` on each engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.in_process import beside
from tests.serve.origin import Origin, raw, running
from tests.support import FILTERS

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
BODY = b"x" * 200_000
"""More than what a buffer of any side holds."""
HOLDS = """
@on_{0}_headers
return 1
@on_{0}_body
return 1
@on_{0}_body/eos
add_header_map_value {1} x-held 1
return 0
"""
RESUMES = {
    "a tick": """
@on_{0}_headers
set_tick_period_milliseconds 20
return 1
@on_tick
set_tick_period_milliseconds 0
set_effective_context $stream
continue_stream {1}
""",
    "a queue": """
@on_configure
register_shared_queue q
@on_{0}_headers
resolve_shared_queue "" q
enqueue_shared_queue 1 go
return 1
@on_queue_ready
dequeue_shared_queue $2
set_effective_context $stream
continue_stream {1}
""",
    "a callout": """
@on_{0}_headers
http_call other :method=GET&:path=/other&:authority=other "" "" 5000
return 1
@on_http_call_response
set_effective_context $stream
continue_stream {1}
""",
}


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with running() as origin:
        yield origin


@pytest.fixture
def through(engine, origin):
    """Serve through a filter with this script."""

    def start(script: str):
        probe = {
            "file": str(FILTERS / "c/probe_0_2_1.wasm"),
            "configuration": script,
            "allow_on_headers_stop_iteration": True,
        }
        clusters = {"other": {"url": origin.url}}
        return beside({"upstream": origin.url, "filters": [probe], "clusters": clusters, "engine": engine.name})

    return start


def chunked(body: bytes, size: int = 50_000) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_a_request_is_held_until_its_body_is_there(through, origin):
    origin.answers["/"] = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", keep=True)
    origin.requests.clear()
    head = b"POST / HTTP/1.1\r\nhost: a\r\n"
    with through(HOLDS.format("request", 0)) as served:
        for framed in (
            b"content-length: 200000\r\n\r\n" + BODY,
            b"transfer-encoding: chunked\r\n\r\n" + chunked(BODY),
        ):
            assert served.answer(head + framed[:1000], framed[1000:150_000], framed[150_000:]).status == 200
    assert [(request["x-held"], request.body == BODY) for request in origin.requests] == [("1", True)] * 2


def test_a_response_is_held_until_its_body_is_there(through, origin):
    with through(HOLDS.format("response", 2)) as served:
        for head, body in (
            (b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n", BODY),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunked(BODY)),
        ):
            origin.answers["/"] = raw(head, body[:1000], body[1000:150_000], body[150_000:], keep=True)
            answer = served.answer(GET)
            assert (answer.headers["x-held"], answer.body == BODY) == ("1", True)


@pytest.mark.parametrize("when", ["headers", "body"])
def test_an_answer_takes_the_place_of_upstreams(through, origin, when):
    origin.answers["/"] = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"hello", keep=True)
    hold = "@on_response_headers\nreturn 1\n" if when == "body" else ""
    with through(f"{hold}@on_response_{when}\nsend_local_response 418 tea short%20and%20stout a=b -1\nreturn 1") as served:
        for _ in range(2):
            answer = served.answer(GET)
            assert (answer.status, answer.headers["a"], answer.body) == (418, "b", b"short and stout")


@pytest.mark.parametrize("resumed", RESUMES)
@pytest.mark.parametrize(("side", "which"), [("request", 0), ("response", 1)])
def test_something_else_lets_it_go_on(through, origin, resumed, side, which):
    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    origin.answers.update({"/": raw(ok, keep=True), "/other": raw(ok, keep=True)})
    with through(RESUMES[resumed].format(side, which)) as served:
        for _ in range(2):
            answer = served.answer(GET)
            assert (answer.status, answer.body) == (200, b"ok")

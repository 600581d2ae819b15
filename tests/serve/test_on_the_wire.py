"""Filters between a client and an upstream, as bytes: what each gets when the others do what is odd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxywasm_host.serve.application import Application
from tests.serve.in_process import serving
from tests.serve.origin import Origin
from tests.support import FILTERS

PROBE = FILTERS / "c/probe_0_2_1.wasm"
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
LOCAL = "@on_request_headers\nsend_local_response {} details body a=b -1\nreturn 1"


class Raw(Origin):
    """Answers every request with `answer`, and keeps what it was sent."""

    asked_by: Application

    def __init__(self, answer: bytes = OK) -> None:
        super().__init__()
        self.answer = answer
        self.received = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.received += data
            writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def served(engine: Any, script: str, answer: bytes = OK, **settings: Any) -> AsyncIterator[tuple[Raw, Callable]]:
    """An upstream, and `ask(bytes)`, through one scripted filter: what comes until nothing is under way."""
    async with Raw(answer) as upstream:
        given = {
            "upstream": {"url": upstream.url},
            "filters": [{"file": str(PROBE), "configuration": "\n" + script}],
            "engine": engine and engine.name,
            **settings,
        }
        async with serving(given) as served:
            upstream.asked_by = served.application
            yield upstream, served.ask


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


RESPONSES = [
    # a filter's script, what upstream answers, what the client asks, what it gets
    (LOCAL.format(204), OK, GET, b"HTTP/1.1 204 No Content\r\na: b\r\n"),
    (LOCAL.format(304), OK, GET, b"HTTP/1.1 304 Not Modified\r\na: b\r\n"),
    (LOCAL.format(600), OK, GET, b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n"),
    ("@on_response_headers\nadd_header_map_value 2 x-echo a%01b", OK, GET, b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n"),
    ("@on_response_headers\nreplace_header_map_value 2 content-length x", OK, GET, b"HTTP/1.1 "),
    ("@on_response_headers\nremove_header_map_value 2 content-length", OK, GET, b"HTTP/1.1 200 OK\r\n"),
    ("", CHUNKED, GET, b"HTTP/1.1 200 OK\r\n"),
    ("", CHUNKED, GET.replace(b"1.1", b"1.0"), b"HTTP/1.1 200 OK\r\n"),
    ("@on_response_headers\nremove_header_map_value 2 content-length", OK, GET.replace(b"1.1", b"1.0"), b"HTTP/1.1 200 OK\r\n"),
    ("@on_request_headers\nreplace_header_map_value 0 :path x", OK, GET, b"HTTP/1.1 503 "),
    ("@on_request_headers\nreplace_header_map_value 0 :method CONNECT", OK, GET, b"HTTP/1.1 503 "),
    ("@on_request_headers\nadd_header_map_value 0 content-length x", OK, GET, b"HTTP/1.1 200 "),
]  # fmt: skip


def test_every_response_has_a_head_and_one_framing(engine, caplog):
    async def test():
        for script, answer, asked, begins in RESPONSES:
            async with served(engine, script, answer) as (_, ask):
                got = await ask(asked + b"\r\n", *([] if b"1.0" in asked else [asked + b"\r\n"]))
                got = got.replace(b"HTTP/1.0 ", b"HTTP/1.1 ", 1)  # in the client's version
                assert got.startswith(begins), script
                assert got.count(b"HTTP/1.1 ") == (1 if b"1.0" in asked else 2), script
                if b"1.0" in asked:
                    assert b"chunked" not in got
                    assert got.endswith(b"\r\n\r\nok")
                if b" 204 " in got:
                    assert b"content-length" not in got
        assert "Traceback" not in caplog.text

    run(test())


REQUESTS = [
    # a filter's script, what the client sends, what the filter says, what upstream gets
    ("@on_request_headers\nget_header_map_value 0 :path", b"GET /x? HTTP/1.1\r\nHost: a\r\n\r\n", '= 0 "/x?"', b"GET /x? HTTP/1.1\r\n"),
    ("@on_request_headers\nreplace_header_map_value 0 :path /y?", GET + b"\r\n", "", b"GET /y? HTTP/1.1\r\n"),
    ("@on_request_headers\nget_header_map_value 0 authorization", GET + b"Authorization: Bearer t \t\r\n\r\n", '= 0 "Bearer t"', b"authorization: Bearer t\r\n"),
    ("@on_request_headers\nget_header_map_value 0 :authority", b"GET http://other.example/p HTTP/1.1\r\nHost: a\r\n\r\n", '= 0 "other.example"', b"host: other.example\r\n"),
    ("@on_request_headers\nget_header_map_value 0 x-forwarded-for", GET + b"Connection: x-forwarded-for, x-mine\r\nX-Mine: 1\r\n\r\n", '= 0 "127.0.0.1"', b"x-forwarded-for: 127.0.0.1\r\n"),
    ("@on_response_headers\nget_header_map_value 2 x-seen", GET + b"\r\n", '= 0 "yes"', b"GET / HTTP/1.1\r\n"),
]  # fmt: skip


def test_filter_and_upstream_see_the_same_request(engine, caplog):
    caplog.set_level("INFO")

    async def test():
        for script, asked, says, received in REQUESTS:
            caplog.clear()
            answer = b"HTTP/1.1 200 OK\r\nX-Seen: yes \t\r\nContent-Length: 2\r\n\r\nok"
            async with served(engine, script, answer) as (upstream, ask):
                assert (await ask(asked)).startswith(b"HTTP/1.1 200 OK\r\n"), script
                assert says in caplog.text, script
                assert received in upstream.received, script
                assert b"x-mine" not in upstream.received

    run(test())


def test_trailers_are_no_headers(engine):
    async def test():
        async with served(engine, "") as (upstream, ask):
            post = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-User: admin\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"
            await ask(post)
            assert b"x-user" not in upstream.received.lower()
            assert b"10.0.0.1" not in upstream.received
            assert upstream.received.endswith(b"\r\n\r\n2\r\nab\r\n0\r\n\r\n")

    run(test())


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open", "fail_reload"])
def test_a_request_with_many_headers_takes_no_filter_down(engine, policy):
    """Refused before filters, whatever they would make of it; all others are served as ever."""
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(1100))
    odd = [
        (GET + many + b"\r\n", b"HTTP/1.1 431 "),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + many + b"\r\n", b"HTTP/1.1 431 "),
        (GET + b"User-Agent: \xff\xfe\r\n\r\n", b"HTTP/1.1 "),
    ]

    async def test():
        filters = [
            {
                "file": str(FILTERS / "rust/headers.wasm"),
                "configuration": "hello",
                "failure_policy": policy,
                "reload_interval": 60,
            }
        ]
        async with served(engine, "", filters=filters) as (upstream, ask):
            for sent, begins in odd:
                assert (await ask(sent)).startswith(begins)
                if sent == odd[0][0]:
                    assert upstream.received == b""
            upstream.received = b""
        async with served(engine, "", filters=filters) as (upstream, ask):
            for sent, _ in odd[:2]:
                await ask(sent)
            assert (await ask(GET + b"\r\n")).startswith(b"HTTP/1.1 200 ")
            assert b"x-wasm: hello\r\n" in upstream.received
            upstream.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + many + b"\r\n"
            assert (await ask(GET + b"\r\n")).startswith(b"HTTP/1.1 502 ")
            upstream.answer = OK
            assert (await ask(GET + b"\r\n")).startswith(b"HTTP/1.1 200 ")

    run(test())


@pytest.mark.parametrize("count", [100, 1000])
def test_as_many_headers_as_the_configuration_allows_pass(engine, count):
    """Beside those that are ours."""
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(count - 1))
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + many + b"\r\n"

    async def test():
        async with Raw(answer) as upstream:
            limits = {"clients": {"max_headers": count}, "upstream": {"url": upstream.url, "max_headers": count}}
            async with served(engine, "", **limits) as (_, ask):
                wire = await ask(GET + many + b"\r\n")
                assert wire.startswith(b"HTTP/1.1 200 ")
                assert wire.lower().count(b"\r\nx-") == count - 1
                assert upstream.received.lower().count(b"\r\nx-") == count - 1 + 3

    run(test())


def test_what_is_refused_is_in_the_access_log(tmp_path: Path):
    async def test():
        log = tmp_path / "access"
        async with served(None, "", b"", access_log={"file": str(log)}, filters=[]) as (upstream, ask):
            assert (await ask(b"GET / HTTP/3.0\r\n\r\n")).endswith(
                b"\r\n\r\nonly HTTP/1.1 and HTTP/1.0 are spoken here\n"
            )
            assert (
                await ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"x\r\n")
            ).startswith(b"HTTP/1.1 400 ")
            assert (await upstream.asked_by.snapshot())["ours"]["requests"] == {"505": 1, "400": 1}
        lines = [line.split("] ")[1] for line in log.read_text().splitlines()]
        assert lines == [
            '"- GET / HTTP/3.0 HTTP/1.1" 505 43',
            '"POST / HTTP/1.1" 400 33',
        ]

    run(test())


@pytest.mark.parametrize(
    ("script", "asked", "status"),
    [
        ("@on_request_headers\nreturn 1", GET + b"\r\n", b"504"),
        ("@on_request_headers\nreturn 1", GET.replace(b"GET", b"POST") + b"Content-Length: 5\r\n\r\nhel", b"408"),
        ("@on_response_headers\nreturn 1", GET + b"\r\n", b"504"),
        ("", GET.replace(b"GET", b"POST") + b"Content-Length: 5\r\n\r\nhel", b"408"),
    ],
)
def test_a_request_without_progress_ends(engine, caplog, script, asked, status):
    """Whoever it waits for: a filter that goes on pausing, or a client that does not send its body."""

    async def test():
        async with served(engine, script, OK if script else b"", stream_idle_timeout=0.2) as (_, ask):
            assert (await ask(asked)).startswith(b"HTTP/1.1 %b " % status)
        if script:
            assert "probe_0_2_1" in caplog.text

    run(test())


def test_a_trap_ends_every_request_of_its_guest(engine, caplog):
    """Those that it held too, with the reason in the log; the next gets a new guest."""
    script = "@on_request_headers\nget_header_map_value 0 x-trap\nif_status 0\ntrap\nreturn 1"

    async def test():
        async with served(engine, script) as (_, ask):
            held = [asyncio.ensure_future(ask(GET + b"\r\n")) for _ in range(3)]
            await asyncio.sleep(0.1)
            assert not any(one.done() for one in held)
            answers = [await ask(GET + b"X-Trap: 1\r\n\r\n"), *await asyncio.gather(*held)]
            assert [answer[:13] for answer in answers] == [b"HTTP/1.1 503 "] * 4
            again = asyncio.ensure_future(ask(GET + b"\r\n"))
            await asyncio.sleep(0.2)
            assert not again.done()
            assert (await ask(GET + b"X-Trap: 1\r\n\r\n"))[:13] == (await again)[:13] == b"HTTP/1.1 503 "
        assert "failed in a callback" in caplog.text

    run(test())

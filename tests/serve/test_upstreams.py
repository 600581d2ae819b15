"""Upstreams of several servers: who gets a request, what is sent once more, who is left out, what is limited."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.serve.in_process import Answer, Beside, beside
from tests.serve.origin import Origin, Reader, Request, Writer, raw, running
from tests.serve.ports import closed_port, listening

RESET = b"upstream connect error or disconnect/reset before headers. reset reason: "
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def status(code: int) -> bytes:
    return b"HTTP/1.1 %d x\r\ncontent-length: 3\r\n\r\n%d" % (code, code)


@pytest.fixture(scope="module")
def shared() -> Iterator[list[Origin]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running()) for _ in range(3)]


@pytest.fixture
def origins(shared: list[Origin]) -> list[Origin]:
    """Three servers that nobody has asked yet."""
    for origin in shared:
        origin.requests.clear()
        origin.answers.clear()
    return shared


@contextmanager
def before(servers: list[object], **upstream: object) -> Iterator[Beside]:
    """Serve in front of these."""
    urls = [{"url": each.url} if isinstance(each, Origin) else each for each in servers]
    with beside({"upstreams": {"all": {"servers": urls, **upstream}}, "routes": [{"upstream": "all"}]}) as served:
        yield served


def ask(served: Beside, target: bytes = b"/", method: bytes = b"GET", body: bytes = b"") -> Answer:
    length = b"content-length: %d\r\n" % len(body) if body else b""
    return served.answer(b"%b %b HTTP/1.1\r\nhost: example.com\r\n%b\r\n%b" % (method, target, length, body))


def taken(origins: list[Origin]) -> list[int]:
    return [len(origin.requests) for origin in origins]


def address(origin: Origin) -> str:
    return f"all 127.0.0.1:{origin.port}"


# -- Balancing ---------------------------------------------------------------------------------------------------------


def test_each_in_its_turn_by_weight(origins):
    one, two, three = origins
    with before([one, {"url": two.url, "weight": 2}, three]) as served:
        order = ""
        for _ in range(8):
            were = taken(origins)
            ask(served)
            order += next(name for name, was, now in zip("abc", were, taken(origins), strict=True) if now > was)
        assert order[:4] == order[4:]
        assert sorted(order[:4]) == ["a", "b", "b", "c"]
        assert "bb" not in order[:4]
        assert served.counted("upstream_requests") == {address(one): 2, address(two): 4, address(three): 2}


def test_the_one_with_the_fewest_under_way(origins):
    one, two, _ = origins
    release = asyncio.Event()

    async def held(request: Request, reader: Reader, writer: Writer) -> bool:
        await release.wait()
        writer.write(OK)
        return True

    one.answers["/held"] = two.answers["/held"] = held
    with before([one, two], balance="least_requests") as served, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, served, b"/held")
        while not any(taken(origins)):
            time.sleep(0.005)
        busy, free = (one, two) if one.requests else (two, one)
        for _ in range(4):
            assert ask(served).status == 200
        assert (len(busy.requests), len(free.requests)) == (1, 4)
        for origin in (one, two):
            origin.loop.call_soon_threadsafe(release.set)
        assert waiting.result().status == 200


# -- Retries -----------------------------------------------------------------------------------------------------------


def test_nobody_is_there(origins):
    gone = {"url": f"http://127.0.0.1:{closed_port()}"}
    with before([gone, origins[0]]) as served:
        assert sorted(ask(served).status for _ in range(4)) == [200, 200, 503, 503]
        assert sorted(served.counted("upstream_connect_failures").values()) == [0, 2]
    with before([gone, origins[0]], retry={"retry_on": ["connect-failure"]}) as served:
        assert [ask(served).status for _ in range(4)] == [200] * 4
        assert served.counted("upstream_retries") == {"all": 2}
    with before([gone], retry={"retry_on": ["connect-failure"], "num_retries": 3, "base_interval": 0.001}) as served:
        answer = ask(served)
        assert (answer.status, answer.body) == (
            503,
            RESET + b"remote connection failure, transport failure reason: Connection refused (os error 111)",
        )
        assert served.counted("upstream_retries") == {"all": 3}


@pytest.mark.parametrize(
    ("first", "retry_on", "status_of", "attempts"),
    [
        (status(500), ["5xx"], 200, 2),
        (status(500), ["gateway-error", "connect-failure", "reset"], 500, 1),
        (status(502), ["gateway-error"], 200, 2),
        (status(429), ["5xx"], 429, 1),
        (status(429), ["retriable-status-codes"], 200, 2),
        (status(404), ["retriable-status-codes"], 404, 1),
        (b"", ["reset"], 200, 2),
        (b"", ["5xx"], 200, 2),
        (b"", ["connect-failure"], 503, 1),
        (b"nonsense\r\n\r\n", ["gateway-error"], 200, 2),
        (b"HTTP/1.1 200 OK\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n", ["unavailable"], 200, 2),
        (b"HTTP/1.1 200 OK\r\ngrpc-status: 13\r\ncontent-length: 0\r\n\r\n", ["unavailable"], 200, 1),
    ],
)  # fmt: skip
def test_what_is_sent_once_more(origins, first, retry_on, status_of, attempts):
    """POST, for what we send again by ourselves is something else."""
    one = origins[0]
    bodies = []

    async def fails_once(request: Request, reader: Reader, writer: Writer) -> bool:
        await request.read(reader)
        bodies.append(request.body)
        writer.write(first if len(bodies) == 1 else OK)
        return False

    one.answers["/"] = fails_once
    retry = {"retry_on": retry_on, "retriable_status_codes": [429], "base_interval": 0.001}
    with before([one], retry=retry) as served:
        assert ask(served, method=b"POST", body=b"hello").status == status_of
    assert bodies == [b"hello"] * attempts


def test_only_what_can_be_kept_is_sent_once_more(origins):
    one, two, _ = origins
    one.answers["/"] = two.answers["/"] = raw(status(503), keep=True)
    with before(
        [one, two], retry={"retry_on": ["5xx"], "max_body": 10, "num_retries": 5, "base_interval": 0.001}
    ) as served:
        assert ask(served, method=b"POST", body=b"x" * 10).status == 503
        assert sorted(taken(origins)) == [0, 3, 3]
        assert ask(served, method=b"POST", body=b"x" * 11).status == 503
        assert sum(taken(origins)) == 7
        chunks = (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
        )
        assert served.answer(chunks).status == 503
        assert sum(taken(origins)) == 8
        assert sum(request.body == b"hello world" for request in one.requests + two.requests) == 1


def test_a_try_that_takes_too_long(origins):
    one, two, _ = origins

    async def hangs(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read()
        return False

    one.answers["/"] = hangs
    retry = {"retry_on": ["gateway-error"], "per_try_timeout": 0.1, "base_interval": 0.001}
    with before([one, two], retry=retry) as served:
        assert [ask(served).status for _ in range(3)] == [200] * 3
        two.answers["/"] = hangs
        answer = ask(served)
        assert (answer.status, answer.body) == (504, b"upstream request timeout")


# -- Servers that fail -------------------------------------------------------------------------------------------------


def test_who_fails_is_left_out_for_a_while(origins):
    one, two, _ = origins
    one.answers["/"] = raw(status(500), keep=True)
    outliers = {"consecutive_5xx": 2, "base_ejection_time": 0.4}
    with before([one, two], outlier_detection=outliers) as served:
        assert Counter(ask(served).status for _ in range(10)) == {500: 2, 200: 8}
        assert served.counted("upstream_ejections") == {address(one): 1, address(two): 0}
        assert served.counted("upstream_ejected") == {address(one): 1, address(two): 0}
        one.answers.clear()
        time.sleep(0.4)
        assert served.counted("upstream_ejected") == {address(one): 0, address(two): 0}
        assert [ask(served).status for _ in range(4)] == [200] * 4
        assert len(one.requests) == 4


def test_who_hangs_is_left_out(origins):
    one, two, _ = origins

    async def hangs(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read()
        return False

    one.answers["/"] = hangs
    outliers = {"consecutive_5xx": 1, "base_ejection_time": 60}
    for limit in ({"timeout": 0.1}, {"total_timeout": 0.1}):
        with before([one, two], outlier_detection=outliers, **limit) as served:
            assert Counter(ask(served).status for _ in range(5)) == {504: 1, 200: 4}


def test_if_all_are_left_out_all_are_used(origins):
    one, two, _ = origins
    one.answers["/"] = two.answers["/"] = raw(status(503), keep=True)
    with before([one, two], outlier_detection={"consecutive_5xx": 1, "base_ejection_time": 60}) as served:
        for _ in range(6):
            assert ask(served).status == 503
        assert sum(served.counted("upstream_ejected").values()) == 2
        assert taken(origins)[:2] == [3, 3]


def test_a_part_of_them_may_be_left_out(origins):
    for origin in origins:
        origin.answers["/"] = raw(status(503), keep=True)
    outliers = {"consecutive_5xx": 1, "base_ejection_time": 60, "max_ejection_percent": 70}
    with before(list(origins), outlier_detection=outliers) as served:
        for _ in range(8):
            assert ask(served).status == 503
        assert sum(served.counted("upstream_ejected").values()) == 2


# -- Limits and time-outs ----------------------------------------------------------------------------------------------


def test_what_is_too_much_waits_or_overflows(origins):
    one = origins[0]
    release = asyncio.Event()

    async def held(request: Request, reader: Reader, writer: Writer) -> bool:
        await release.wait()
        writer.write(OK)
        return True

    one.answers["/held"] = held
    for limits, overflows in (
        ({"max_connections": 1, "max_pending_requests": 0}, 1),
        ({"max_requests": 1, "max_pending_requests": 0}, 1),
        ({"max_connections": 1, "connect_timeout": 10}, 0),
    ):
        one.requests.clear()
        with before([one], **limits) as served, ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, served, b"/held")
            while not one.requests:
                time.sleep(0.005)
            second = pool.submit(ask, served)
            if overflows:
                assert (second.result().status, second.result().body) == (503, RESET + b"overflow")
            one.loop.call_soon_threadsafe(release.set)
            assert first.result().status == 200
            assert second.result().status == (503 if overflows else 200)
            assert served.counted("upstream_overflows") == {"all": overflows}
        one.loop.call_soon_threadsafe(release.clear)


def test_the_whole_takes_too_long(origins):
    one = origins[0]

    async def trickles(request: Request, reader: Reader, writer: Writer) -> bool:
        if request.target == "/body":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                if request.target == "/body":
                    writer.write(b".")
                    await writer.drain()
                await asyncio.sleep(0.02)
        return False

    one.answers["/body"] = one.answers["/head"] = trickles
    with before([one], total_timeout=0.3) as served:
        answer = ask(served, b"/head")
        assert (answer.status, answer.body) == (504, b"upstream request timeout")
        got = served.told(b"GET /body HTTP/1.1\r\nhost: x\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert 1 < got.count(b".") < 100


def test_tls_that_is_never_agreed(origins):
    with listening() as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        for protocol in ("http1", "http2", "auto"):
            with before([{"url": url}], connect_timeout=0.1, protocol=protocol) as served:
                answer = ask(served)
                assert (answer.status, answer.body) == (503, RESET + b"connection timeout")


def test_a_route_has_a_time_out_and_retries_of_its_own(origins):
    one = origins[0]

    async def slow(request: Request, reader: Reader, writer: Writer) -> bool:
        await asyncio.sleep(0.3)
        writer.write(OK)
        return True

    one.answers["/slow"] = slow
    one.answers["/fails"] = raw(status(500), keep=True)
    routes = [
        {"path": "/slow", "methods": ["GET"], "upstream": "all", "timeout": 0.05},
        {
            "path": "/fails",
            "methods": ["GET"],
            "upstream": "all",
            "retry": {"retry_on": ["5xx"], "base_interval": 0.001},
        },
        {"upstream": "all"},
    ]
    with beside({"upstreams": {"all": one.url}, "routes": routes}) as served:
        assert ask(served, b"/slow").status == 504
        assert ask(served, b"/slow", b"PUT").status == 200
        one.requests.clear()
        ask(served, b"/fails")
        ask(served, b"/fails", b"PUT")
        assert [request.method for request in one.requests] == ["GET", "GET", "PUT"]

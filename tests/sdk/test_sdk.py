"""What the SDK offers beside headers and bodies: packed, on every engine, and under CPython."""

from __future__ import annotations

from proxywasm_host.testing import FAIL, GrpcStatus, Response, later

AWAITS = """
from proxywasm import HttpFilter, Queue, Response, every, gather, gauge, get_property, log, register, sleep

ticks = gauge("ticks")

@every(1.0)
def tick():
    ticks.increment()

class Awaits(HttpFilter):
    async def on_request_headers(self, request):
        if request.path == "/gather":
            a, b, c = await gather(self.call("one", "GET", "/"), self.call("two", "GET", "/"), self.call("three", "GET", "/"))
            return Response(200, body=[a.text, b.status, c])
        if request.path == "/sleep":
            await sleep(2.5)
        if request.path == "/grpc":
            good = await self.grpc("rpc", "S", "Good", b"hello")
            bad = await self.grpc("rpc", "S", "Bad", b"")
            return Response(200, body=[good.status, good.message.decode(), bad.status])
        if request.path == "/queue":
            queue = Queue("q")
            queue.push("a")
            queue.push(b"b")
            return Response(200, body=[queue.pop().decode(), queue.pop().decode(), queue.pop()])
        if request.path == "/property":
            return Response(200, body=[get_property("source.port"), get_property("request.method"), get_property("no.such")])

register(Awaits)
"""


def test_what_is_awaited(script, harness):
    f = script(AWAITS)
    harness.http["one"] = later(2, Response(200, {}, b"first"))
    harness.http["two"] = 204
    harness.http["three"] = FAIL
    r = f.get("/gather")
    assert (r.response.json(), r.took) == (["first", 204, None], 2)
    r = f.get("/sleep")
    assert (r.status, 2.5 <= r.took <= 3.5) == (200, True)
    harness.grpc["rpc", "S", "Good"] = b"world"
    harness.grpc["rpc", "S", "Bad"] = GrpcStatus(5, "no")
    assert f.get("/grpc").response.json() == [0, "world", 5]
    assert f.get("/queue").response.json() == ["a", "b", None]
    assert f.request("GET", "/property", properties={"source.port": 80}).response.json() == [80, "GET", None]


def test_ticks(script, harness):
    script(AWAITS)
    harness.clock.advance(3.5)
    assert harness.metrics["ticks"] == 3


TCP = """
from proxywasm import TcpFilter, register

@register
class Upper(TcpFilter):
    def on_downstream_data(self, chunk, end):
        return chunk.upper()
"""


def test_connections(script):
    f = script(TCP)
    with f.tcp() as c:
        c.downstream(b"abc", end_stream=False)
        assert c.to_upstream == b"ABC"

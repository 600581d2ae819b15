"""What the SDK offers beside headers and bodies: packed, on every engine, and under CPython."""

from __future__ import annotations

import json

import pytest

from proxywasm_host.errors import ProxyWasmError
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


EVERYTHING = """
import time
from proxywasm import (
    HostError, HttpFilter, Queue, Response, clear_route_cache, counter, create_task, foreign, get_property, histogram, log,
    property_bytes, register, set_property, shared, sleep, vm_config,
)

sizes, seen = histogram("sizes"), counter("seen")

class Everything(HttpFilter):
    going = False

    def on_configure(self, config):
        self.queue = Queue("work")
        create_task(self.start())

    async def start(self):
        log.info("a task of the plugin, at level %d", log.level)
        await sleep(1)
        log.info("a second later; %s", vm_config().decode())

    async def on_queue(self, queue):
        await sleep(0)
        log.info("queue: %s %s", self.queue.pop(), queue == self.queue.id)

    def on_request_headers(self, request):
        self.path = request.path
        if self.path == "/reset":
            request.reset()
        elif self.path == "/shared":
            first = shared.compare_and_swap("k", "1", 0)
            value, cas = shared.get_with_cas("k")
            good, late = shared.compare_and_swap("k", "2", cas), shared.compare_and_swap("k", "3", cas)
            shared.update("k", lambda old: old + b"!")
            return Response(200, body=[first, value.decode(), good, late, shared.get("k").decode(), shared.get_with_cas("x")[1], shared.increment("n", 5)])
        elif self.path == "/foreign":
            out = foreign("uncompress", foreign("compress", "abc")).decode()
            clear_route_cache()
            try:
                foreign("nothing")
            except HostError as error:
                return Response(200, body=[out, str(error), error.status])
        elif self.path == "/property":
            set_property("mine.own", "v")
            return Response(200, {"x": "1"}, [get_property("mine.own"), property_bytes("no.such"), get_property("request.method")])
        elif self.path == "/grpc":
            return Response(200, grpc_status=7, details="my_details")
        elif self.path == "/queue":
            self.queue.push("job")
        elif self.path == "/async body":
            pass
        sizes.record(len(self.path))
        seen.increment(2)

    def on_request_trailers(self, request):
        request.trailers["x-trailer"] = str(len(request.trailers))

    def on_response_trailers(self, response):
        response.trailers.add("x-seen", str(seen.value))

    def on_response_headers(self, response):
        response.headers["x-path"] = self.path
        try:
            self.request.headers["late"] = "1"
        except HostError as error:
            response.headers["x-late"] = str(error)

    def on_done(self):
        if self.id == 1 and not self.going:
            type(self).going = True
            create_task(self.finish())
            return False

    async def finish(self):
        log.info("the end waits")
        await self.call("web", "GET", "/bye")
        log.info("done")
        self.done()

register(Everything)
"""


def test_everything_of_the_abi(script, harness):
    f = script(EVERYTHING, vm_configuration=b"of the vm")
    assert f.logs.info == ["a task of the plugin, at level 0"]
    harness.clock.advance(1.5)
    assert f.logs.info[1:] == ["a second later; of the vm"]
    assert f.get("/shared").response.json() == [True, "1", True, False, "2!", 0, 5]
    assert f.get("/foreign").response.json() == ["abc", "the host answers NotFound", 1]
    r = f.get("/property")
    assert (r.response.headers["x"], r.response.json()) == ("1", ["v", None, "GET"])
    assert f.get("/grpc").details == "my_details"
    assert f.get("/reset").reset == "wasm_close_stream"
    f.upstream = Response(200, {}, b"x", trailers={"t": "1"})
    r = f.post("/plain", body=b"b", trailers={"a": "1", "b": "2"})
    assert (len(r.upstream.trailers), r.upstream.trailers["x-trailer"]) == (3, "2")
    assert (r.response.trailers["t"], r.response.trailers["x-seen"]) == ("1", "4")
    assert r.response.headers["x-path"] == "/plain"
    assert r.response.headers["x-late"] == "the host answers BadArgument: these headers have gone on, or are not there yet"
    f.get("/queue")
    harness.clock.advance(1.5)
    assert f.logs.info[-1] == "queue: b'job' True"
    harness.http["web"] = later(1, 200)
    f.close()
    assert f.logs.info[-1] == "the end waits"
    harness.clock.advance(2)
    assert (f.logs.info[-1], f.logs.error) == ("done", [])


WAITING = """
from proxywasm import HttpFilter, TcpFilter, register

class Waits(HttpFilter):
    async def on_request_body(self, request, chunk, end):
        pass

    async def on_log(self):
        pass

class Configured(HttpFilter):
    async def on_configure(self, config):
        pass

class Connections(TcpFilter):
    async def on_connection(self):
        pass

    def on_downstream_data(self, chunk, end):
        if chunk == b"close":
            self.close()

register(Waits)
register(Configured, "configured")
register(Connections, "tcp")
"""


def test_what_cannot_wait_says_so(script, harness):
    f = script(WAITING)
    lines = [line.splitlines()[-1] for line in f.post("/", body=b"x").logs.error]
    assert lines == [
        "TypeError: on_request_body is async, but cannot wait: await the body in on_request_headers",
        "TypeError: on_log is async, but cannot wait: have every(…) do what waits",
    ]
    with pytest.raises(ProxyWasmError, match="refused its configuration"):
        script(WAITING, root_id="configured")
    f = script(WAITING, root_id="tcp")
    with f.tcp() as c:
        assert c.closed
    assert f.logs.error[-1].endswith("a handler of connections is async, but cannot wait: give what waits to create_task")


def test_headers_are_read_but_not_changed_after_the_body(script):
    f = script(
        "from proxywasm import HttpFilter, register\n"
        "class F(HttpFilter):\n"
        "    async def on_request_headers(self, request):\n"
        "        data = await request.json()\n"
        "        request.set_body([data, request.path, request.method, request.headers['X-A'], 'x-b' in request.headers,\n"
        "                          request.headers.get_all('x-a'), len(request.headers) == len(list(request.headers))])\n"
        "        if request.path == '/late':\n"
        "            request.headers['x'] = '1'\n"
        "register(F)\n"
    )
    r = f.post("/p", [("x-a", "1"), ("x-a", "2")], body=b"{}")
    assert json.loads(r.upstream.body) == [{}, "/p", "POST", "1,2", False, ["1", "2"], True]
    r = f.post("/late", {"x-a": "1"}, body=b"{}")
    assert (r.status, r.logs.error[0].splitlines()[-1].partition(": ")[2]) == (
        500,
        "the host answers BadArgument: these headers have gone on: change them before you await the body",
    )

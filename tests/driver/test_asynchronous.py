"""The driver for event loops: callouts to a real server, ticks, queues, and what ends when."""

from __future__ import annotations

import threading

import anyio
import anyio.lowlevel
import pytest

from proxywasm_host import Host, Services
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.http import AsyncHttpClient
from proxywasm_host.runtime.effects import (
    CalloutFailed,
    GrpcCall,
    GrpcStream,
    HttpCall,
    HttpCallReply,
    RedisCall,
    RedisCallReply,
    RequestHeaders,
    ResetStream,
)
from tests.support import REQUEST, code

pytestmark = pytest.mark.anyio

ANSWERED = """@on_http_call_response
get_header_map_value 6 :status
get_buffer_bytes 4 0 100
get_status
say answered
"""
RESET = ["get_header_map_value(6, :status) = 2", "get_buffer_bytes(4, 0, 100) = 1", 'get_status() = 0 11 "reset"', "answered"]  # fmt: skip


class Lines:
    """A log that can be waited for."""

    level = 0

    def __init__(self) -> None:
        self.messages: list[str] = []

    def log(self, line) -> None:
        self.messages.append(line.message)

    async def until(self, *wanted: str) -> list[str]:
        with anyio.fail_after(10):
            while not all(message in self.messages for message in wanted):
                await anyio.sleep(0.002)
        messages, self.messages = self.messages, []
        return messages


@pytest.fixture
def log():
    return Lines()


@pytest.fixture
async def start(engine, log):
    """Start a probe with a script in a driver: ``driver, plugin = await start(script, clusters, **clients)``."""
    entered = []

    async def start(script, clusters=None, clients=None, version="0_2_1", **options):
        services = Services(log=log, clusters=clusters if clusters is not None else Clusters())
        host = Host(engine, services=services)
        plugin = host.load_plugin(code(f"c/probe_{version}"), configuration=script, **options)
        driver = AsyncDriver(host, clients)
        await driver.__aenter__()
        entered.append(driver)
        return driver, plugin

    yield start
    for driver in entered:
        await driver.__aexit__(None, None, None)
        driver.host.close()


def call(path: str, timeout: int = 0, *, cluster: str = "up", method: str = "GET", body: str = '""') -> str:
    return f'http_call {cluster} :method={method}&:path=/{path}&:authority=au.example&x-a=1&x-a=2 {body} "" {timeout}\n'


async def test_a_callout_and_its_reply(start, log, upstream):
    script = "@on_configure\n" + call("echo?a=%2520b", method="POST", body="hello") + ANSWERED
    await start(
        script.replace("answered", "x-two\nget_header_map_pairs 6\nsay answered", 1), Clusters({"up": upstream.url})
    )
    messages = await log.until("answered")
    assert 'get_header_map_value(6, :status) = 0 "200"' in messages
    assert "get_header_map_pairs(6) = 0 [:status=200, content-length=5, x-two=a, x-two=b]" in messages
    assert 'get_buffer_bytes(4, 0, 100) = 0 "hello"' in messages
    [(method, path, headers, body)] = upstream.seen
    assert (method, path, body) == ("POST", "/echo?a=%20b", b"hello")
    assert headers == [("host", "au.example"), ("x-a", "1"), ("x-a", "2"), ("content-length", "5")]


@pytest.mark.parametrize(
    ("path", "timeout", "status", "body"),
    [
        ("silent", 30, "504", "upstream request timeout"),
        ("resets", 0, "503", "upstream connect error or disconnect/reset before headers. reset reason: connection termination"),
        ("halves", 0, "503", "upstream connect error or disconnect/reset before headers. reset reason: connection termination"),
        ("nonsense", 0, "503", "upstream connect error or disconnect/reset before headers. reset reason: protocol error"),
    ],
)  # fmt: skip
async def test_an_upstream_that_does_not_answer(start, log, upstream, path, timeout, status, body):
    await start("@on_configure\n" + call(path, timeout) + ANSWERED, Clusters({"up": upstream.url}))
    assert (await log.until("answered"))[1:] == [
        f'get_header_map_value(6, :status) = 0 "{status}"',
        f'get_buffer_bytes(4, 0, 100) = 0 "{body}"',
        'get_status() = 0 0 ""',
        "answered",
    ]


async def test_an_answer_that_comes_too_late_as_a_whole(upstream):
    headers = [(b":method", b"GET"), (b":path", b"/begins"), (b":authority", b"x")]
    async with AsyncHttpClient(Clusters({"up": upstream.url})) as client:
        assert await client(HttpCall(None, 4, "up", headers, b"", [], 1000)) == CalloutFailed("reset")


@pytest.mark.parametrize("path", ["breaks", "large"])
async def test_an_answer_that_does_not_end(start, log, upstream, path):
    cluster = Cluster(upstream.url, max_response=100_000)
    await start("@on_configure\n" + call(path) + ANSWERED, Clusters({"up": cluster}))
    assert (await log.until("answered"))[1:] == RESET


async def test_nobody_listens(start, log, closed_port):
    await start(
        "@on_configure\n" + call("echo", cluster=f"127.0.0.1:{closed_port}") + ANSWERED, Clusters(any_host=True)
    )
    assert 'get_header_map_value(6, :status) = 0 "503"' in await log.until("answered")


async def test_addresses_share_a_client(upstream, closed_port):
    """A guest may make them up."""
    address = upstream.url.removeprefix("http://")
    headers = [(b":method", b"GET"), (b":path", b"/echo"), (b":authority", b"x")]
    async with AsyncHttpClient(Clusters(any_host=Cluster("http://any.host"))) as client:
        for target, status in ((address, b"200"), (f"127.0.0.1:{closed_port}", b"503"), ("no-such-host.invalid", b"503")):
            reply = await client(HttpCall(None, 4, target, headers, b"", [], 1000))
            assert dict(reply.headers)[b":status"] == status
        assert len(client._clients) == 1
    assert "no-such-host.invalid" not in Clusters(any_host=True)  # which takes no name without a port for an address


async def test_callouts_that_are_refused(start, log, upstream):
    script = "@on_configure\n" + call("echo", cluster="nobody") + call("echo").replace(":path=", "path=")
    await start(script, Clusters({"up": upstream.url}))
    assert [message.rpartition(" = ")[2] for message in log.messages] == ["2", "2"]
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("a/../b/./c", "/a/../b/./c"),
        ("x?", "/x?"),
        ("%2522%253c%7c%7d%5e%60?%7b", "/%22%3c|}^`?{"),
        ("a%2523b?c%23d", "/a%23b?c#d"),
        ("two//slashes/", "/two//slashes/"),
    ],
)
async def test_a_path_goes_out_as_it_is(start, log, upstream, path, wire):
    """What a filter has signed or checked is what is asked for."""
    await start("@on_configure\n" + call(path) + ANSWERED, Clusters({"up": upstream.url}))
    assert 'get_header_map_value(6, :status) = 0 "200"' in await log.until("answered")
    assert [path for _, path, _, _ in upstream.seen] == [wire]


async def test_a_method_goes_out_as_it_is(start, log, upstream):
    await start("@on_configure\n" + call("x", method="lower") + ANSWERED, Clusters({"up": upstream.url}))
    assert 'get_header_map_value(6, :status) = 0 "501"' in await log.until("answered")


@pytest.mark.parametrize("path", [" bad", "%01", "%c3%a4"])
async def test_a_path_that_is_none(start, log, upstream, path):
    """Whatever a filter asks for, it gets an answer."""
    await start(
        "@on_configure\n" + call("x").replace("/x", f"http:{path.replace(' ', '%2520')}") + ANSWERED,
        Clusters({"up": upstream.url}),
    )
    await log.until("answered")


async def test_many_callouts_at_once(start, log, upstream):
    await start(
        "@on_configure\nrepeat 50\n" + call("echo") + "@on_http_call_response/50\nsay all\n",
        Clusters({"up": upstream.url}),
    )
    await log.until("all")
    assert len(upstream.seen) == 50


async def test_a_stream_that_is_gone_before_the_reply(start, log, upstream):
    script = (
        "@on_request_headers\n"
        + call("echo")
        + "return 1\n@on_http_call_response\nset_effective_context $stream\nsay answered\n"
    )
    driver, plugin = await start(script, Clusters({"up": upstream.url}))
    stream = driver.host.http_stream([plugin])
    driver.perform(stream.request_headers(REQUEST, True))
    driver.perform(stream.close())
    assert (await log.until("answered"))[-2:] == ["set_effective_context($stream) = 2", "answered"]


async def test_a_vm_that_is_gone_before_the_reply(start, log, upstream):
    driver, plugin = await start("@on_configure\n" + call("silent") + ANSWERED, Clusters({"up": upstream.url}))
    driver.perform(plugin.close())
    upstream.release.set()
    await anyio.sleep(0.05)
    assert not driver._scopes
    assert "answered" not in log.messages


async def test_effects_reach_the_stream_that_they_belong_to(start, log, upstream):
    script = (
        "@on_request_headers\n"
        + call("echo")
        + "return 1\n@on_http_call_response\nset_effective_context $stream\ncontinue_stream 0\n"
    )
    driver, plugin = await start(script, Clusters({"up": upstream.url}))
    stream = driver.host.http_stream([plugin])
    effects, came = [], anyio.Event()

    def sink(effect):
        effects.append(effect)
        came.set()

    driver.attach(stream, sink)
    driver.perform(stream.request_headers(REQUEST, True))
    assert effects == []
    with anyio.fail_after(10):
        await came.wait()
    assert [type(effect) for effect in effects] == [RequestHeaders]
    driver.detach(stream)
    driver.perform(stream.close())
    assert driver.streams == 0


async def test_ticks(start, log):
    script = "@on_configure\nset_tick_period_milliseconds 5\n@on_tick/3\nsay third\nset_tick_period_milliseconds 0\n@on_tick\nsay tick\n"
    driver, _ = await start(script)
    await log.until("third")
    await anyio.sleep(0.03)
    assert log.messages == []
    assert driver._ticking == {}


async def test_a_failed_plugin_does_not_tick(start, log):
    driver, plugin = await start(
        "@on_configure\nset_tick_period_milliseconds 5\n@on_tick/2\ntrap\n@on_tick\nsay tick\n"
    )
    with anyio.fail_after(10):
        while plugin.failure is None:
            await anyio.sleep(0.002)
    assert driver._ticking == {}
    assert log.messages.count("tick") == 1


async def test_a_message_from_another_thread(start, log):
    driver, _ = await start(
        "@on_configure\nregister_shared_queue jobs\n@on_queue_ready\ndequeue_shared_queue $2\nsay taken\n", vm_id="v"
    )
    enqueue = driver.host.services.shared_queues.enqueue
    threading.Thread(target=enqueue, args=(1, b"a job")).start()
    assert 'dequeue_shared_queue($2) = 0 "a job"' in await log.until("taken")


ENDLESS = {
    # the end of one turn is the beginning of the next
    "messages": (
        "0_2_1",
        "@on_configure\nregister_shared_queue q\nenqueue_shared_queue 1 x\n@on_queue_ready\ndequeue_shared_queue 1\nenqueue_shared_queue 1 x\nsay turn\n",
    ),
    "callouts": (
        "0_2_100",
        "@on_configure\nredis_init up u p 0\nredis_call up PING\n@on_redis_call_response\nredis_call up PING\nsay turn\n",
    ),
}


@pytest.mark.parametrize(("version", "script"), ENDLESS.values(), ids=ENDLESS)
async def test_a_guest_that_never_stops_does_not_stop_others(start, log, version, script):
    await start(script, {"up"}, version=version)
    for _ in range(3):
        assert set(await log.until("turn")) > {"turn"}
        with anyio.fail_after(10):
            await anyio.sleep(0.001)


REDIS = "@on_configure\nredis_init up u p 0\nredis_call up PING\n@on_redis_call_response\nget_buffer_bytes 9 0 100\nsay $3\nsay answered\n"


async def test_a_callout_without_a_client_fails(start, log, caplog):
    await start(REDIS, {"up"}, version="0_2_100")
    assert "get_buffer_bytes(9, 0, 100) = 0" in " ".join(await log.until("answered"))
    assert "calls 'up', but there is no client for RedisCall" in caplog.text


async def test_a_client_of_ones_own(start, log):
    async def redis(callout: RedisCall) -> RedisCallReply:
        await anyio.lowlevel.checkpoint()
        return RedisCallReply(b"+" + callout.query)

    await start(REDIS, {"up"}, {RedisCall: redis}, version="0_2_100")
    assert 'get_buffer_bytes(9, 0, 100) = 0 "+PING"' in await log.until("answered")


async def test_callouts_that_are_cancelled_before_their_turn_are_not_made(start, log, caplog):
    made = []

    async def client(callout, *conversation):
        made.append(callout)
        return CalloutFailed()

    calls = 'grpc_stream up s m ""\ngrpc_cancel $token\ngrpc_call up s m "" "" 0\ngrpc_cancel $token\n'
    script = f'@on_configure\n{calls}{call("x")}@on_http_call_response\nsay answered\n'
    await start(script, {"up"}, dict.fromkeys((GrpcStream, GrpcCall, HttpCall), client))
    await log.until("answered")
    assert [type(callout) for callout in made] == [HttpCall]
    assert caplog.text == ""


@pytest.mark.parametrize("reply", [None, HttpCallReply([])])
async def test_a_client_that_is_broken(start, log, caplog, reply):
    async def redis(callout):
        if reply is None:
            raise ValueError("of the client")
        return reply

    await start(REDIS, {"up"}, {RedisCall: redis}, version="0_2_100")
    await log.until("answered")
    assert ("of the client" if reply is None else "the client's answer") in caplog.text


async def test_streams_that_wait_for_a_filter_end_with_the_driver(engine, log):
    script = "@on_request_headers\nreturn 1\n@on_log\nsay log"
    with Host(engine, services=Services(log=log)) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=script)
        effects = []
        async with AsyncDriver(host) as driver:
            stream = host.http_stream([plugin])
            driver.attach(stream, effects.append)
            driver.perform(stream.request_headers(REQUEST, True))
        assert effects == [ResetStream("driver_ended", stream)]
        assert stream.closed

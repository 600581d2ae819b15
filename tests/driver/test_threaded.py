"""The driver for threads: as the one for event loops, with a lock and real threads."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading

import pytest

from proxywasm_host import Host, Services
from proxywasm_host.driver import threaded
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.runtime.effects import (
    GrpcCall,
    GrpcCallReply,
    HttpCallReply,
    RedisCall,
    RedisCallReply,
    RequestHeaders,
    ResetStream,
)
from proxywasm_host.testing.compliance.processes import in_a_child
from tests.conftest import ENGINES
from tests.driver.test_asynchronous import ANSWERED, ENDLESS, REDIS, RESET, call
from tests.support import REQUEST, code, held_by_another_thread


class Lines:
    """A log that can be waited for."""

    level = 0

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.changed = threading.Condition()

    def log(self, line) -> None:
        with self.changed:
            self.messages.append(line.message)
            self.changed.notify()

    def until(self, wanted: str) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(lambda: wanted in self.messages, 10), self.messages
            messages, self.messages = self.messages, []
            return messages


@pytest.fixture
def log():
    return Lines()


@pytest.fixture
def start(engine, log):
    """Start a probe with a script in a driver: ``driver, plugin = start(script, clusters, clients)``."""
    entered = []

    def start(script, clusters=None, clients=None, version="0_2_1", **options):
        host = Host(engine, services=Services(log=log, clusters=clusters if clusters is not None else Clusters()))
        plugin = host.load_plugin(code(f"c/probe_{version}"), configuration=script, **options)
        driver = ThreadDriver(host, clients).__enter__()
        entered.append(driver)
        return driver, plugin

    yield start
    for driver in entered:
        driver.__exit__()
        driver.host.close()


def test_a_callout_and_its_reply(start, log, upstream):
    script = "@on_configure\n" + call("echo?a=%2520b", method="POST", body="hello") + ANSWERED
    start(script, Clusters({"up": upstream.url}))
    messages = log.until("answered")
    assert 'get_header_map_value(6, :status) = 0 "200"' in messages
    assert 'get_buffer_bytes(4, 0, 100) = 0 "hello"' in messages
    [(method, path, headers, body)] = upstream.seen
    assert (method, path, body) == ("POST", "/echo?a=%20b", b"hello")
    assert headers == [("host", "au.example"), ("x-a", "1"), ("x-a", "2"), ("content-length", "5")]


@pytest.mark.parametrize(("path", "wire"), [("a/../b/./c", "/a/../b/./c"), ("x?", "/x?"), ("%7c?%7b", "/|?{")])
def test_a_path_goes_out_as_it_is(start, log, upstream, path, wire):
    start("@on_configure\n" + call(path) + ANSWERED, Clusters({"up": upstream.url}))
    assert 'get_header_map_value(6, :status) = 0 "200"' in log.until("answered")
    assert [path for _, path, _, _ in upstream.seen] == [wire]


@pytest.mark.parametrize(
    ("path", "timeout", "status"),
    [("silent", 30, "504"), ("drips", 100, "504"), ("resets", 0, "503"), ("halves", 0, "503"), ("nonsense", 0, "503")],
)
def test_an_upstream_that_does_not_answer(start, log, upstream, path, timeout, status):
    start("@on_configure\n" + call(path, timeout) + ANSWERED, Clusters({"up": upstream.url}))
    assert f'get_header_map_value(6, :status) = 0 "{status}"' in log.until("answered")


@pytest.mark.parametrize("path", ["breaks", "large"])
def test_an_answer_that_does_not_end(start, log, upstream, path):
    cluster = Cluster(upstream.url, max_response=100_000)
    start("@on_configure\n" + call(path) + ANSWERED, Clusters({"up": cluster}))
    assert log.until("answered")[1:] == RESET


def test_nobody_listens(start, log, closed_port):
    start("@on_configure\n" + call("echo", cluster=f"127.0.0.1:{closed_port}") + ANSWERED, Clusters(any_host=True))
    assert 'get_header_map_value(6, :status) = 0 "503"' in log.until("answered")


def test_many_callouts_at_once(start, log, upstream):
    script = "@on_configure\nrepeat 50\n" + call("echo") + "@on_http_call_response/50\nsay all\n"
    start(script, Clusters({"up": upstream.url}))
    log.until("all")
    assert len(upstream.seen) == 50


def test_a_vm_that_is_gone_before_the_reply(start, log, upstream):
    driver, plugin = start("@on_configure\n" + call("silent") + ANSWERED, Clusters({"up": upstream.url}))
    with driver.lock:
        driver.perform(plugin.close())
        assert not driver._waiting
    driver.__exit__()
    assert "answered" not in log.messages


def test_effects_reach_the_stream_that_they_belong_to(start, log, upstream):
    script = (
        "@on_request_headers\n"
        + call("echo")
        + "return 1\n@on_http_call_response\nset_effective_context $stream\ncontinue_stream 0\n"
    )
    driver, plugin = start(script, Clusters({"up": upstream.url}))
    effects, came = [], threading.Event()

    def sink(effect):
        effects.append(effect)
        came.set()

    with driver.lock:
        stream = driver.host.http_stream([plugin])
        driver.attach(stream, sink)
        driver.perform(stream.request_headers(REQUEST, True))
        assert effects == []
    assert came.wait(10)
    assert [type(effect) for effect in effects] == [RequestHeaders]
    with driver.lock:
        driver.detach(stream)
        driver.perform(stream.close())


def test_ticks(start, log):
    script = "@on_configure\nset_tick_period_milliseconds 5\n@on_tick/3\nsay third\nset_tick_period_milliseconds 0\n@on_tick\nsay tick\n"
    driver, _ = start(script)
    assert [message for message in log.until("third") if message == "tick"] == ["tick", "tick"]
    with driver.lock:
        assert driver._ticking == {}


def test_a_message_from_another_thread(start, log):
    script = "@on_configure\nregister_shared_queue jobs\n@on_queue_ready\ndequeue_shared_queue $2\nsay taken\n"
    driver, _ = start(script, vm_id="v")
    threading.Thread(target=driver.host.services.shared_queues.enqueue, args=(1, b"a job")).start()
    assert 'dequeue_shared_queue($2) = 0 "a job"' in log.until("taken")


@pytest.mark.parametrize(("version", "script"), ENDLESS.values(), ids=ENDLESS)
def test_a_guest_that_never_stops_does_not_stop_others(start, log, version, script):
    driver, _ = start(script, {"up"}, version=version)
    for _ in range(3):
        assert set(log.until("turn")) > {"turn"}
        assert driver.lock.acquire(timeout=10)
        driver.lock.release()


def test_nothing_is_kept_of_callouts_that_are_cancelled_before_a_thread_came_to_them(engine, log):
    made, release = [], threading.Event()

    def client(callout):
        made.append(callout.token)
        assert release.wait(10)
        return GrpcCallReply(b"")

    with Host(engine, services=Services(log=log, clusters={"up"})) as host:
        calls = 'grpc_call up s m "" "" 0\n' * 2 + 'grpc_call up s m "" "" 0\ngrpc_cancel $token\n' * 50
        host.load_plugin(code("c/probe_0_2_1"), configuration=f"@on_configure\n{calls}\n@on_grpc_receive/2\nsay second")
        with ThreadDriver(host, {GrpcCall: client}, threads=1) as driver:
            with driver.lock:
                assert len(driver._queued) <= 2
            release.set()
            log.until("second")
            assert made == [5, 9]
            with driver.lock:
                assert (driver._queued, driver._waiting) == ({}, {})


def test_a_callout_under_way_when_the_driver_ends_leaves_no_connection(engine, log, upstream):
    """It is about to connect, and does so while the driver ends."""

    class Slow(Clusters):
        asked, ending = threading.Event(), threading.Event()

        def called(self, name, authority=None):
            if threading.current_thread().name == "proxywasm-clients":
                self.asked.set()
                assert self.ending.wait(60)
            return super().called(name, authority)

    clusters = Slow({"up": upstream.url})
    with Host(engine, services=Services(log=log, clusters=clusters)) as host, ThreadDriver(host) as driver:
        host.load_plugin(code("c/probe_0_2_1"), configuration="@on_configure\n" + call("echo"))
        with driver.lock:
            driver.perform(host.drain())
        assert clusters.asked.wait(60)
        cancel = driver._own_clients.cancel
        driver._own_clients.cancel = lambda callout: (cancel(callout), clusters.ending.set())
    assert not driver._under_way
    theirs = [each for each in gc.get_objects() if type(each) is socket.socket and each.fileno() >= 0]
    assert upstream.server_port not in [port_of(each) for each in theirs]


@pytest.fixture
def mute():
    """The listening socket of a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def url_of(listening) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_the_driver_ends_although_an_upstream_never_answers(engine, log, mute):
    """The filter has set no time limit, nor has the cluster."""
    host = Host(engine, services=Services(log=log, clusters=Clusters({"up": url_of(mute)})))
    host.load_plugin(code("c/probe_0_2_1"), configuration="@on_configure\n" + call("echo") * 3)
    driver = ThreadDriver(host).__enter__()
    asked = [mute.accept()[0] for _ in range(3)]
    ending = threading.Thread(target=driver.__exit__, daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive()
    host.close()
    for connection in asked:
        connection.close()


def test_the_process_ends_although_an_upstream_never_answers(mute):
    """Nobody ends the driver, as in many a WSGI server."""
    program = f"""
from proxywasm_host import Host, Services
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.threaded import ThreadDriver
from tests.driver.test_asynchronous import call
from tests.support import code
host = Host({ENGINES[0]!r}, services=Services(clusters=Clusters({{"up": {url_of(mute)!r}}})))
script = "@on_configure\\nset_tick_period_milliseconds 1\\n" + call("echo")
host.load_plugin(code("c/probe_0_2_1"), configuration=script)
driver = ThreadDriver(host).__enter__()
while not driver._under_way:
    pass
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_client_that_does_not_end(engine, log, caplog, monkeypatch):
    monkeypatch.setattr(threaded, "PATIENCE", 0.05)
    asked, release = threading.Event(), threading.Event()

    def client(callout):
        asked.set()
        assert release.wait(20)
        return GrpcCallReply(b"")

    with Host(engine, services=Services(log=log, clusters={"up"})) as host:
        host.load_plugin(code("c/probe_0_2_1"), configuration='@on_configure\ngrpc_call up s m "" "" 0')
        with ThreadDriver(host, {GrpcCall: client}):
            assert asked.wait(20)
        assert not release.is_set()
        release.set()
    assert "the clients of GrpcCall do not end" in caplog.text


def test_streams_that_wait_for_a_filter_end_with_the_driver(engine, log):
    with Host(engine, services=Services(log=log)) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration="@on_request_headers\nreturn 1\n@on_log\nsay log")
        effects = []
        with ThreadDriver(host) as driver:
            stream = host.http_stream([plugin])
            driver.attach(stream, effects.append)
            driver.perform(stream.request_headers(REQUEST, True))
        assert effects == [ResetStream("driver_ended", stream)]
        assert stream.closed
        assert log.messages == ["log"]


def test_a_child_process_does_not_use_its_parents_driver(engine, log):
    """It has none of the threads, one of which holds the lock here."""

    def child():
        with pytest.raises(RuntimeError, match="enter a ThreadDriver in this one"), driver.lock:
            pass
        driver.__exit__()

    with (
        Host(engine, services=Services(log=log)) as host,
        ThreadDriver(host) as driver,
        held_by_another_thread(driver.lock),
    ):
        assert in_a_child(child) == 0


def port_of(connection) -> int | None:
    """The port of the peer, if it has one."""
    try:
        peer = connection.getpeername()
    except OSError:
        return None
    return peer[1] if isinstance(peer, tuple) else None


def test_ticks_that_are_set_again_and_again_leave_nothing_behind(start):
    driver, _ = start(
        "@on_configure\n" + "set_tick_period_milliseconds 1000000\nset_tick_period_milliseconds 2000000\n" * 100
    )
    assert len(driver._timer._due) == 1


def test_clients_of_ones_own(start, log, caplog):
    start(REDIS, {"up"}, {RedisCall: lambda callout: RedisCallReply(b"+" + callout.query)}, version="0_2_100")
    assert 'get_buffer_bytes(9, 0, 100) = 0 "+PING"' in log.until("answered")
    start(REDIS, {"up"}, version="0_2_100")
    log.until("answered")
    assert "there is no client for RedisCall" in caplog.text


@pytest.mark.parametrize("reply", [None, HttpCallReply([])])
def test_a_client_that_is_broken(start, log, caplog, reply):
    def redis(callout):
        if reply is None:
            raise ValueError("of the client")
        return reply

    start(REDIS, {"up"}, {RedisCall: redis}, version="0_2_100")
    log.until("answered")
    assert ("of the client" if reply is None else "the client's answer") in caplog.text


def test_streams_of_many_threads(start, log, upstream):
    """Each of eight threads sends requests through one host."""
    driver, plugin = start("@on_request_headers\nadd_header_map_value 0 x-seen 1\n", Clusters({"up": upstream.url}))
    passed = []

    def requests():
        for _ in range(50):
            with driver.lock:
                stream = driver.host.http_stream([plugin])
                driver.attach(stream, passed.append)
                driver.perform(stream.request_headers(REQUEST, True))
                driver.detach(stream)
                driver.perform(stream.close())

    threads = [threading.Thread(target=requests) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 400
    assert all((b"x-seen", b"1") in effect.headers for effect in passed)

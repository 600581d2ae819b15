"""Threads and child processes, with real filters on every engine.

A host belongs to one thread at a time; several threads have a host each. After a fork, what was loaded before goes on in
the child process, which has its own copy of it all.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxywasm_host import Host, Limits, ModuleCache, Services
from proxywasm_host.runtime.effects import RequestHeaders
from proxywasm_host.testing import Message, exchange
from proxywasm_host.testing.compliance import processes
from proxywasm_host.testing.compliance.processes import in_a_child
from tests.support import FILTERS, REQUEST, RESPONSE, code

HEADERS = str(FILTERS / "rust/headers.wasm")


def added(host, plugin):
    """The header that the filter `headers` adds to one request, which it is configured with."""
    with host.http_stream([plugin]) as stream:
        [effect] = stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE, True)
    assert isinstance(effect, RequestHeaders)
    return dict(effect.headers)[b"x-wasm"]


class Gate:
    """A log sink at which the guest waits in the middle of a hostcall."""

    level = 0

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def log(self, line):
        self.reached.set()
        assert self.opened.wait(30)


class TestThreads:
    def test_each_with_a_host_of_its_own(self, engine):
        def work(number):
            with Host(engine) as host:
                plugins = [
                    host.load_plugin(HEADERS, configuration=str(number)),
                    host.load_plugin(
                        code("c/probe_0_2_1"), configuration="@on_request_headers\nget_property plugin_name"
                    ),
                ]
                request = Message.request("GET", "http://example.com/", [])
                results = [exchange(host, plugins, request).upstream_request.headers for _ in range(30)]
            return {dict(headers)[b"x-wasm"] for headers in results}

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(work, range(8))) == [{b"%d" % number} for number in range(8)]

    def test_a_host_may_move_to_another_thread(self, engine):
        with Host(engine) as host, ThreadPoolExecutor(1) as pool:
            plugin = host.load_plugin(HEADERS, configuration="moved")
            for _ in range(10):
                assert pool.submit(added, host, plugin).result() == added(host, plugin) == b"moved"

    def test_a_second_thread_is_refused_while_the_guest_waits_in_a_hostcall(self, engine):
        gate = Gate()
        with Host(engine, services=Services(log=gate)) as host, ThreadPoolExecutor(1) as pool:
            plugin = host.load_plugin(code("rust/body"))
            first, second = host.http_stream([plugin]), host.http_stream([plugin])
            under_way = pool.submit(first.request_headers, REQUEST, True)
            assert gate.reached.wait(30)
            with pytest.raises(RuntimeError, match="a guest that runs"):
                second.request_headers(REQUEST, True)
            gate.opened.set()
            assert [type(effect) for effect in under_way.result()] == [RequestHeaders]
            first.close()
            second.close()
            assert plugin.failure is None
            with host.http_stream([plugin]) as third:
                assert [type(effect) for effect in third.request_headers(REQUEST, True)] == [RequestHeaders]

    def test_a_second_thread_is_refused_while_the_guest_computes_and_its_own_vm_goes_on(self, engine):
        limits = Limits(deadline=1.0)
        gate = Gate()
        gate.opened.set()
        with (
            Host(engine, services=Services(log=gate), limits=limits) as host,
            Host(engine, limits=limits) as mine,
            ThreadPoolExecutor(1) as pool,
        ):
            script = "@on_request_headers\nsay hello\nloop"
            plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=script)
            others = [mine.load_plugin(path, configuration="mine") for path in (HEADERS, FILTERS / "go/headers.wasm")]
            first, second = host.http_stream([plugin]), host.http_stream([plugin])
            under_way = pool.submit(first.request_headers, REQUEST, True)
            assert gate.reached.wait(30)
            with pytest.raises(RuntimeError, match="a guest that runs"):
                second.request_headers(REQUEST, True)
            served = 0
            while not under_way.done():
                assert added(mine, others[0]) == b"mine"
                with mine.http_stream(others) as stream:
                    stream.request_headers(REQUEST, True)
                served += 1
            assert served
            assert first.failure.kind == plugin.failure.kind == "deadline"
            assert bool(plugin.failure.backtrace) is engine.capabilities.backtrace
            assert [other.failure for other in others] == [None, None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class TestForks:
    @pytest.fixture
    def _goes_on(self, engine):
        if not engine.capabilities.fork:
            pytest.skip("what was opened before a fork does not go on after it")

    @pytest.mark.usefixtures("_goes_on")
    def test_while_other_threads_load_filters(self, engine, monkeypatch):
        """Whatever they were amid is free in the child: an engine's locks, too."""
        monkeypatch.setattr(processes, "_PATIENCE", 10.0)
        over = threading.Event()

        def load():
            with Host(engine) as host:
                assert added(host, host.load_plugin(HEADERS, configuration="x")) == b"x"

        def loads():
            while not over.is_set():
                load()

        with ThreadPoolExecutor(3) as pool:
            loading = [pool.submit(loads) for _ in range(3)]
            try:
                for number in range(20):
                    over.wait(0.0007 * number)
                    assert in_a_child(load) == 0
            finally:
                over.set()
            for each in loading:
                each.result(30)

    def test_plugins_and_streams_go_on_in_both_processes_or_it_is_told(self, engine):
        with Host(engine) as host:
            plugin = host.load_plugin(HEADERS, configuration="before")
            stream = host.http_stream([plugin])
            stream.request_headers(REQUEST, True)

            def child():
                if engine.capabilities.fork:
                    assert stream.response_headers(RESPONSE, True)
                    stream.close()
                    assert added(host, plugin) == b"before"
                else:
                    with host.http_stream([plugin]) as refused:
                        assert refused.request_headers(REQUEST, True)[0].headers[0] == (b":status", b"503")
                    assert "load the filter in the child process" in str(plugin.failure)
                with Host(engine) as another:
                    assert added(another, another.load_plugin(HEADERS, configuration="after")) == b"after"

            assert in_a_child(child) == 0
            assert stream.response_headers(RESPONSE, True)
            stream.close()
            assert added(host, plugin) == b"before"

    @pytest.mark.usefixtures("_goes_on")
    def test_deadlines_traps_and_new_vms_in_a_child(self, engine):
        limits = Limits(deadline=0.2)
        with Host(engine, limits=limits) as host:
            loops, traps = (
                host.load_plugin(code("c/probe_0_2_1"), configuration=f"@on_request_headers\n{what}", vm_id=what,
                                 failure_policy="fail_reload", reload_interval=0)
                for what in ("loop", "trap")
            )  # fmt: skip

            def child():
                for plugin, kind in (loops, "deadline"), (traps, "trap"):
                    for turn in range(2):
                        with host.http_stream([plugin]) as stream:
                            stream.request_headers(REQUEST, True)
                        assert stream.failure.kind == kind
                        assert plugin.reloads == turn

            assert in_a_child(child) == 0
            assert loops.failure is traps.failure is None

    def test_code_that_a_thread_compiled_while_the_process_forked(self, engine, tmp_path):
        """The child has neither that thread nor what it would have compiled, and must not wait for it."""
        begun, go_on = threading.Event(), threading.Event()

        class Slow:
            def __getattr__(self, name):
                return getattr(engine, name)

            def compile(self, bytecode):
                begun.set()
                assert go_on.wait(60)
                return engine.compile(bytecode)

        slow, cache = Slow(), ModuleCache(tmp_path)
        thread = threading.Thread(target=cache.load, args=(slow, code("rust/headers")))
        thread.start()
        assert begun.wait(30)

        def child():
            go_on.set()
            with Host(slow, cache=cache) as host:
                assert added(host, host.load_plugin(HEADERS, configuration="x")) == b"x"

        assert in_a_child(child) == 0
        go_on.set()
        thread.join()

    @pytest.mark.usefixtures("_goes_on")
    def test_multiprocessing(self, engine, tmp_path):
        program = tmp_path / "pool.py"
        program.write_text(
            textwrap.dedent(
                f"""
                import multiprocessing, os, warnings
                from proxywasm_host import Host
                warnings.simplefilter("ignore", DeprecationWarning)
                fork = multiprocessing.get_context("fork")
                together = fork.Barrier(2)
                host = Host({engine.name!r})
                plugin = host.load_plugin({HEADERS!r}, configuration="shared")

                def work(number):
                    together.wait(30)
                    results = set()
                    for _ in range(20):
                        with host.http_stream([plugin]) as stream:
                            [effect] = stream.request_headers({REQUEST!r}, True)
                            results.add(dict(effect.headers)[b"x-wasm"])
                    return os.getpid(), results

                with fork.Pool(2) as pool:
                    pids, results = zip(*pool.map(work, range(4), chunksize=1))
                assert len(set(pids)) == 2 and os.getpid() not in pids, pids
                assert results == ({{b"shared"}},) * 4, results
                assert work.__globals__["plugin"].failure is None
                print("fine")
                """
            )
        )
        done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)

    @pytest.mark.usefixtures("_goes_on")
    def test_gunicorn_that_loads_its_application_before_it_forks_workers(self, engine, tmp_path):
        (tmp_path / "application.py").write_text(
            textwrap.dedent(
                f"""
                import json, os, time
                from proxywasm_host import Host, Limits

                host = Host({engine.name!r}, limits=Limits(deadline=0.2))
                plugin = host.load_plugin({HEADERS!r}, configuration="preloaded")
                probe = host.load_plugin({str(FILTERS / "c/probe_0_2_1.wasm")!r}, configuration="@on_request_headers\\nloop")
                loaded_in = os.getpid()

                def application(environ, start_response):
                    headers = [(b":authority", b"x"), (b":path", environ["PATH_INFO"].encode()),
                               (b":method", b"GET"), (b":scheme", b"http")]
                    with host.http_stream([probe if environ["PATH_INFO"] == "/loop" else plugin]) as stream:
                        effects = stream.request_headers(headers, True)
                    time.sleep(0.05)
                    start_response("200 OK", [("content-type", "application/json")])
                    answer = {{
                        "pid": os.getpid(), "loaded in": loaded_in, "failure": stream.failure and stream.failure.kind,
                        "x-wasm": dict(effects[0].headers).get(b"x-wasm", b"").decode(),
                    }}
                    return [json.dumps(answer).encode()]
                """
            )
        )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            command = ["-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"fd://{listener.fileno()}"]
            options = ["--no-control-socket", "--worker-tmp-dir", tmp_path, "application:application"]
            server = subprocess.Popen(
                [sys.executable, *command, *options],
                cwd=tmp_path, pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                port = listener.getsockname()[1]

                def ask(path):
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
                        return json.load(response)

                with ThreadPoolExecutor(4) as pool:
                    answers = list(pool.map(ask, ["/"] * 24))
                    loops = list(pool.map(ask, ["/loop"] * 4))
                answers += [ask("/") for _ in range(4)]
            finally:
                server.terminate()
                _, said = server.communicate(timeout=30)
        assert {answer["x-wasm"] for answer in answers} == {"preloaded"}, said
        assert len({answer["pid"] for answer in answers}) == 2
        assert {answer["loaded in"] for answer in answers} == {server.pid}
        assert {answer["failure"] for answer in loops} == {"deadline"}
        assert server.returncode == 0, said

"""``proxywasm ext-proc`` as a process behind a real Envoy: modes, failures, reloading, health, metrics, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from proxywasm_host.envoy.messages import HealthCheckRequest, HealthCheckResponse
from tests.envoy.proxy import Proxy, Served, envoy, served, upstream, wait_for
from tests.envoy.through_ext_proc import http_filter
from tests.serve.test_load import run
from tests.serve.test_serve import certificate, signed
from tests.support import FILTERS

PROBE = FILTERS / "c/probe_0_2_1.wasm"
HEADERS = FILTERS / "rust/headers.wasm"
ADDS = "@on_request_headers\nadd_header_map_value 0 x-filter {}\n"
HOLDS_ALL = (
    "@on_request_headers\nremove_header_map_value 0 content-length\n"
    "@on_request_body\nreturn 1\n"
    "@on_request_body/eos\nset_buffer_bytes 0 0 100000 changed\nreturn 0\n"
)
"""Holds the body until its end, and replaces it."""


@pytest.fixture(scope="module")
def origin():
    with upstream() as port:
        yield port


@pytest.fixture
def server():
    """A function that starts ``proxywasm ext-proc`` with a script for the probe."""
    stack = []

    def start(script: str, *options: object, filter=PROBE) -> Served:
        listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
        script = script if script.startswith("@/") else f"\n{script}"  # what begins with @ is a file
        context = served("ext-proc", filter, "--filter-config", script, *listen, *options)
        stack.append(context)
        return context.__enter__()

    yield start
    for context in reversed(stack):
        context.__exit__(None, None, None)


@pytest.fixture
def proxied(tmp_path, origin):
    """A function that starts Envoy before a server of ours."""
    stack = []

    def start(server: Served, mode: str = "NONE", **options) -> Proxy:
        log_format = "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %DYNAMIC_METADATA(wasm)%\n"
        folder = tmp_path / f"envoy-{len(stack)}"
        context = envoy(
            folder, [http_filter(mode, **options)], origin, {"ext_proc": server.port}, log_format=log_format
        )
        stack.append(context)
        return context.__enter__()

    yield start
    for context in reversed(stack):
        context.__exit__(None, None, None)


# Modes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.carries("ext-proc", "request bodies part by part")
@pytest.mark.parametrize("mode", ["BUFFERED", "BUFFERED_PARTIAL", "STREAMED", "FULL_DUPLEX_STREAMED"])
@pytest.mark.parametrize("body", [b"abcde", [b"abc", b"de"]], ids=["whole", "parts"])
def test_a_body_that_a_filter_replaces(server, proxied, mode, body):
    proxy = proxied(server(HOLDS_ALL), mode)
    answer = proxy.request("POST", "/", body)
    assert (answer.status, answer.echo["body"]) == (200, "changed")


@pytest.mark.parametrize("mode", ["BUFFERED", "STREAMED", "FULL_DUPLEX_STREAMED"])
def test_content_length_is_right_though_the_filter_leaves_it(server, proxied, mode):
    proxy = proxied(server("@on_request_body/1\nset_buffer_bytes 0 0 100 longer-than-before\n"), mode)
    answer = proxy.request("POST", "/", b"abcde")
    assert (answer.status, answer.echo["body"]) == (200, "longer-than-before")


def test_without_bodies_a_filter_is_asked_for_them_to_be_sent(server, proxied):
    proxy = proxied(server(HOLDS_ALL), "NONE", allow_mode_override=True)
    assert proxy.request("POST", "/", b"abcde").echo["body"] == "changed"


def test_it_is_told_once_that_bodies_do_not_come(server, proxied):
    ours = server(HOLDS_ALL)
    proxy = proxied(ours, "NONE")
    assert [proxy.request("POST", "/", b"abcde").echo["body"] for _ in range(3)] == ["abcde"] * 3
    ours.line(
        r"can change the request's body, but Envoy does not send it: set processing_mode.request_body_mode: STREAMED"
    )
    assert ours.log.count("can change the request's body") == 1


def slowly(*parts: bytes):
    """A body whose parts do not come at once."""
    for part in parts:
        yield part
        time.sleep(0.3)


LOOKS_FIRST = (
    "@on_request_headers\nreturn 1\n"
    "@on_request_body\nreturn 1\n"
    "@on_request_body/eos\nadd_header_map_value 0 x-seen all\nreturn 0\n"
)
"""Holds the headers until it has seen the body."""


@pytest.mark.parametrize("mode", ["NONE", "BUFFERED", "STREAMED", "FULL_DUPLEX_STREAMED"])
def test_headers_that_wait_for_the_body(server, proxied, tmp_path, mode):
    config = tmp_path / "ext-proc.yaml"
    config.write_text(
        f"filters:\n- file: {PROBE}\n  configuration_file: script\n  allow_on_headers_stop_iteration: true\n"
        "listen: 127.0.0.1:0\n"
    )
    (tmp_path / "script").write_text(LOOKS_FIRST)
    with served("ext-proc", "--config", config) as ours:
        proxy = proxied(ours, mode, allow_mode_override=True)
        answer = proxy.request("POST", "/", b"abcde")
        assert (answer.status, answer.echo["body"], answer.echo["headers"].get("x-seen")) == (200, "abcde", "all")
        fixed = proxied(ours, mode)
        answer = fixed.request("POST", "/", slowly(b"abc", b"de"))
        if mode in ("NONE", "STREAMED"):
            assert answer.status == 503
            ours.line("holds the request's headers until it has seen the body.*request_body_mode: BUFFERED")
        else:
            assert (answer.status, answer.echo["headers"].get("x-seen")) == (200, "all")


def test_requests_are_needed(server, proxied):
    ours = server(ADDS.format("a"))
    modes = {"request_header_mode": "SKIP", "response_header_mode": "SEND"}
    assert proxied(ours, processing_mode=modes).request().status == 503
    ours.line("set processing_mode.request_header_mode: SEND")


def test_what_filters_store_is_dynamic_metadata(server, proxied):
    proxy = proxied(
        server("@on_request_headers\nset_property user alice\n"),
        metadata_options={"receiving_namespaces": {"untyped": ["wasm"]}},
    )
    assert proxy.request().status == 200
    assert wait_for(lambda: proxy.access_log.exists() and proxy.access_log.read_text()) == (
        '200 via_upstream {"user":"alice"}\n'
    )


def test_attributes_are_properties(server, proxied):
    ours = server("@on_request_headers\nget_property source%00address\nget_property request%00protocol\n")
    assert proxied(ours).request().status == 200
    ours.line(r'get_property\(source%00address\) = 0 "127.0.0.1:\d+"')
    ours.line(r'get_property\(request%00protocol\) = 0 "HTTP/1.1"')


@pytest.mark.usefixtures("on_engine")
def test_a_pause_is_an_answer_that_is_not_given_yet(server, proxied, origin):
    script = (
        '@on_request_headers\nhttp_call idp :method=GET&:path=/&:authority=idp "" "" 5000\nreturn 1\n'
        "@on_http_call_response\nset_effective_context $stream\nadd_header_map_value 0 x-allowed yes\ncontinue_stream 0\n"
    )
    ours = server(script, "--cluster", f"idp=http://127.0.0.1:{origin}")
    assert proxied(ours).request().echo["headers"]["x-allowed"] == "yes"


def test_a_pause_beyond_the_message_timeout_is_envoys_to_judge(server, proxied):
    ours = server("@on_request_headers\nreturn 1\n")
    assert proxied(ours, message_timeout="0.2s").request().status == 504
    assert proxied(ours, message_timeout="0.2s", failure_mode_allow=True).request().status == 200


def test_time_is_asked_for(server, proxied, tmp_path):
    script = "@on_configure\nset_tick_period_milliseconds 600\n@on_request_headers\nreturn 1\n@on_tick\nset_effective_context $stream\ncontinue_stream 0\n"
    (tmp_path / "script").write_text(script)
    config = tmp_path / "ext-proc.yaml"
    config.write_text(
        f"filters: [{{file: {PROBE}, configuration_file: script}}]\nlisten: 127.0.0.1:0\nmessage_timeout: 30\n"
    )
    with served("ext-proc", "--config", config) as ours:
        proxy = proxied(ours, message_timeout="0.2s", max_message_timeout="60s")
        assert proxy.request().status == 200


# Failures -------------------------------------------------------------------------------------------------------------

FAILS = {
    "traps": "@on_request_headers\ntrap\n",
    "traps amid the response": "@on_response_headers\ntrap\n",
    "loops": "@on_request_headers\nloop\n",
    "eats memory": "@on_request_headers\nrepeat 100000\ngrow 1000\ntrap\n",
    "recurses": "@on_request_headers\nrecurse\n",
}


@pytest.mark.parametrize("what", FAILS)
def test_a_filter_that_fails_costs_no_request_that_envoy_would_let_pass(server, proxied, what):
    ours = server(FAILS[what], "--deadline", "0.3", "--memory-limit", "64MiB")
    lenient, strict = proxied(ours, failure_mode_allow=True), proxied(ours)
    assert [lenient.request().status for _ in range(4)] == [200] * 4
    assert [strict.request().status for _ in range(4)] == [503] * 4
    assert lenient.process.poll() is None


@pytest.mark.usefixtures("on_engine")
def test_a_filter_that_loops_is_ended_on_each_engine(server, proxied):
    ours = server(FAILS["loops"], "--deadline", "0.3")
    lenient = proxied(ours, failure_mode_allow=True)
    assert [lenient.request().status for _ in range(2)] == [200] * 2


def test_envoy_goes_on_by_its_failure_mode_when_the_server_is_killed(server, proxied):
    ours = server(ADDS.format("a"))
    lenient, strict = proxied(ours, failure_mode_allow=True), proxied(ours)
    assert [proxy.request().echo["headers"]["x-filter"] for proxy in (lenient, strict)] == ["a", "a"]
    ours.process.kill()
    ours.process.wait()
    answers = [lenient.request() for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert ["x-filter" in answer.echo["headers"] for answer in answers] == [False] * 3
    assert [strict.request().status for _ in range(3)] == [503] * 3


# Life of the server ---------------------------------------------------------------------------------------------------


def health(port: int, service: str = "", credentials: grpc.ChannelCredentials | None = None) -> int | grpc.StatusCode:
    options = [("grpc.ssl_target_name_override", "localhost")]
    channel = (
        grpc.insecure_channel(f"127.0.0.1:{port}")
        if credentials is None
        else grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
    )
    with channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
        )
        try:
            return check(HealthCheckRequest(service=service), timeout=20).status
        except grpc.RpcError as error:
            return error.code()


def test_health(server):
    ours = server(ADDS.format("a"))
    assert health(ours.port) == 1
    assert health(ours.port, "envoy.service.ext_proc.v3.ExternalProcessor") == 1
    assert health(ours.port, "nobody") is grpc.StatusCode.NOT_FOUND


def test_changes_are_loaded_while_it_serves(server, proxied, tmp_path):
    script = tmp_path / "script"
    script.write_text(ADDS.format("old"))
    ours = server(f"@{script}", "--watch")
    proxy = proxied(ours)
    assert proxy.request().echo["headers"]["x-filter"] == "old"
    script.write_text(ADDS.format("new"))
    ours.line("loaded the changes")
    assert proxy.request().echo["headers"]["x-filter"] == "new"


def test_metrics(server, proxied):
    ours = server(ADDS.format("a"), "--admin", "127.0.0.1:0")
    proxy = proxied(ours)
    for _ in range(3):
        proxy.request()
    wait_for(lambda: 'proxywasm_requests_total{code="OK"} 3.0' in ours.get("/metrics")[1])
    assert ours.get("/healthz") == (200, "ok\n")
    assert 'proxywasm_vm_memory_bytes{plugin="probe_0_2_1"}' in ours.get("/metrics")[1]
    assert "GET /" not in ours.get("/live.json")[1]
    proxy.request()
    wait_for(lambda: "GET /" in ours.get("/live.json")[1])


def test_several_processes(server, proxied):
    ours = server(ADDS.format("a"), "--workers", "2", "--admin", "127.0.0.1:0")
    proxy = proxied(ours)
    assert [proxy.request().status for _ in range(4)] == [200] * 4
    children = map(int, Path(f"/proc/{ours.process.pid}/task/{ours.process.pid}/children").read_text().split())
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    ours.line("has died: starting another")
    wait_for(lambda: proxy.request().status == 200)


def test_it_ends_when_it_is_told(server, proxied):
    ours = server(ADDS.format("a"))
    proxy = proxied(ours, failure_mode_allow=True)
    assert proxy.request().status == 200
    ours.process.send_signal(signal.SIGTERM)
    assert ours.process.wait(20) == 0


def test_who_watches_its_health_does_not_keep_it_from_ending(server):
    ours = server(ADDS.format("a"))
    with grpc.insecure_channel(f"127.0.0.1:{ours.port}") as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
        )
        told = watch(HealthCheckRequest(), timeout=60)
        assert next(told).status == 1
        ours.process.send_signal(signal.SIGTERM)
        assert [each.status for each in told] == [2]
        assert ours.process.wait(20) == 0  # it would wait for calls under way for half a minute


def test_what_is_wrong_is_told(tmp_path):
    config = tmp_path / "ext-proc.yaml"
    config.write_text("filters: [none.wasm]\nupstream: http://x\n")
    with served("ext-proc", "--config", config) as ours:
        assert ours.process.wait(30) == 2
        ours.line(r"ext-proc.yaml:2: upstream: is not known; see proxywasm ext-proc --schema")
    with served("ext-proc") as ours:
        assert ours.process.wait(30) == 2
        ours.line(r"say what to run: FILTER.wasm, or --config FILE")


def test_a_filter_has_a_configuration_of_its_own_for_some_requests(tmp_path, proxied):
    rules = [{"hosts": ["b.example"], "configuration": ADDS.format("b")}, {"paths": ["/off*"], "disabled": True}]
    config = tmp_path / "ext-proc.json"
    filters = [{"file": str(PROBE), "configuration": ADDS.format("all"), "rules": rules}]
    config.write_text(json.dumps({"listen": "127.0.0.1:0", "filters": filters}))
    with served("ext-proc", "--config", config) as ours:
        proxy = proxied(ours)

        def added(path: str, host: str) -> str | None:
            answer = proxy.request("GET", path, headers={"host": host})
            assert answer.status == 200
            return dict(answer.echo["headers"]).get("x-filter")

        assert added("/", "a.example") == "all"
        assert added("/?x", "b.example") == "b"
        assert added("/off?x", "a.example") is None


def test_messages_out_of_order_end_the_call(server):
    from proxywasm_host.envoy.messages import ProcessingRequest, ProcessingResponse

    ours = server(ADDS.format("a"))

    async def call(*messages: object) -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ours.port}") as channel:
            process = channel.stream_stream(
                "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
                ProcessingRequest.SerializeToString,
                ProcessingResponse.FromString,
            )()
            for message in messages:
                await process.write(message)
            with contextlib.suppress(grpc.RpcError):
                await process.read()
            return await process.code()

    body, nothing = ProcessingRequest(), ProcessingRequest()
    body.request_body.body = b"x"
    for message in body, nothing:
        assert asyncio.run(call(message)) is grpc.StatusCode.INVALID_ARGUMENT
    assert health(ours.port) == 1


def test_tls_with_clients_certificates(tmp_path):
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    cert, key = certificate(tmp_path / "server")
    ca, ca_key = certificate(tmp_path / "client")
    leaf, leaf_key = signed(tmp_path, ca, ca_key)
    config = tmp_path / "ext-proc.yaml"
    tls = {"certificate": str(cert), "key": str(key), "client_ca": str(ca)}
    config.write_text(json.dumps({"filters": [str(HEADERS)], "listen": "127.0.0.1:0", "tls": tls}))
    trusted = Path(cert).read_bytes()
    with served("ext-proc", "--config", config) as ours:
        known = grpc.ssl_channel_credentials(trusted, Path(leaf_key).read_bytes(), Path(leaf).read_bytes())
        assert health(ours.port, credentials=known) == 1
        assert health(ours.port, credentials=grpc.ssl_channel_credentials(trusted)) is grpc.StatusCode.UNAVAILABLE
        assert health(ours.port) is grpc.StatusCode.UNAVAILABLE


def test_a_filter_that_only_observes_changes_nothing_and_holds_nothing(server, proxied):
    script = "@on_request_headers\nadd_header_map_value 0 x-filter a\nsay seen\nreturn 1\n@on_response_headers\nsay answered\n"
    ours = server(script)
    proxy = proxied(ours, observability_mode=True)
    assert "x-filter" not in proxy.request().echo["headers"]
    ours.line("seen")


def test_load_meets_no_error(server, proxied):
    """Of HTTP through an Envoy that would answer 500, and of calls of gRPC themselves, over several connections."""
    from proxywasm_host.envoy.messages import ProcessingRequest, ProcessingResponse

    ours = server(ADDS.format("a"), "--workers", 2)
    strict = proxied(ours)
    assert strict.request().status == 200
    told = run("h2load", "--h1", "-n", 1000, "-c", 16, f"http://127.0.0.1:{strict.port}/")
    assert "1000 2xx, 0 3xx, 0 4xx, 0 5xx" in told
    request = ProcessingRequest()
    for name, value in ((":method", b"GET"), (":path", b"/"), (":scheme", b"http"), (":authority", b"a")):
        request.request_headers.headers.headers.add(key=name, raw_value=value)
    request.request_headers.end_of_stream = True

    async def calls(number: int) -> list[str]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ours.port}", options) as channel:
            method = channel.stream_stream(
                "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
                ProcessingRequest.SerializeToString,
                ProcessingResponse.FromString,
            )

            async def one() -> str:
                process = method(timeout=60)
                await process.write(request)
                answer = await process.read()
                await process.done_writing()
                assert await process.code() is grpc.StatusCode.OK
                (added,) = answer.request_headers.response.header_mutation.set_headers
                return added.header.key

            return [name for _ in range(number // 8) for name in await asyncio.gather(*(one() for _ in range(8)))]

    async def all_calls() -> list[str]:
        return [name for names in await asyncio.gather(*(calls(80) for _ in range(4))) for name in names]

    assert asyncio.run(all_calls()) == ["x-filter"] * 320


def test_no_request_is_lost_under_load_nor_when_the_server_is_killed_meanwhile(server, proxied):
    ours = server(ADDS.format("a"))
    lenient = proxied(ours, failure_mode_allow=True)
    assert lenient.request().echo["headers"]["x-filter"] == "a"
    begun = threading.Barrier(9)

    def many(_: int) -> list[tuple[int, bool]]:
        found = []
        for number in range(60):
            if number == 30:
                begun.wait(60)  # all are half-way through
            answer = lenient.request("POST", body=b"x" * 1000)
            found.append((answer.status, "x-filter" in answer.echo["headers"]))
        return found

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(many, number) for number in range(8)]
        begun.wait(60)
        ours.process.kill()
        answers = [each.result(60) for each in running]
    assert {status for each in answers for status, _ in each} == {200}
    assert all(filtered for each in answers for _, filtered in each[:30])
    assert not any(filtered for each in answers for _, filtered in each[-5:])

"""A recording becomes a test for pytest, or a suite, and each is green at once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from proxywasm_host import Host
from proxywasm_host.driver.dispatch import Dispatcher
from proxywasm_host.errors import ConfigError
from proxywasm_host.integrations import wsgi
from proxywasm_host.recording import Record, Recording, replay
from proxywasm_host.recording.conversion import as_pytest, as_suite
from proxywasm_host.testing import Harness, RedisError, RedisStatus
from proxywasm_host.testing.callouts import resp, value_of
from tests.cli.conftest import AUTH, BODY, HEADERS, PANICS, PROBE, command, proxywasm
from tests.grpc_services import GrpcServer
from tests.support import FILTERS, REQUEST
from tests.testing.test_plugin import folder

__all__ = ["command", "folder", "proxywasm"]

pytest_plugins = "pytester"

TWO_CALLS = "\n@on_request_headers\n" + 'http_call idp :method=GET&:path=/&:authority=idp "" "" 1000\n' * 2
TICKING = """
@on_configure
set_tick_period_milliseconds 5
@on_request_headers
return 1
@on_tick
set_effective_context $stream
continue_request
"""
GOOD = ["--config", "callout:idp", "-H", "authorization: Bearer good"]
CASES = {
    "a body in chunks, each way": [
        BODY, "POST", "/x?y=1", "--chunk", "foo", "--chunk", "fo", "--config", "foo=bar",
        "--response-chunk", "fo", "--response-chunk", "ofoo", "--response-header", "x-a: 1", "--response-header", "x-a: 2",
    ],
    "a callout that lets it through": [AUTH, "POST", "/x", "--chunk", "a", *GOOD, "--callout", "idp=200:ok"],
    "a local response": [AUTH, "POST", "/x", "-d", "body", *GOOD, "--callout", "idp=403:no"],
    "a callout that fails": [AUTH, "/x", *GOOD, "--callout", "idp=fail"],
    "two callouts": [PROBE, "/", "--config", TWO_CALLS, "--callout", "idp=200"],
    "a tick that resumes": [str(FILTERS / "c/probe_0_1_0.wasm"), "/x", "--config", TICKING, "--ticks", "1"],
    "a trap": [PANICS, "/x", "--config", "response_headers"],
    "trailers": [HEADERS, "POST", "/x", "-d", "a", "--trailer", "x-t: 1", "--response-trailer", "x-u: 2", "--config", "é"],
    "a chain": [HEADERS, AUTH, "/x", "--config", "t", "-H", "authorization: Bearer t"],
}  # fmt: skip


@pytest.fixture
def record(proxywasm, tmp_path):
    """Run with ``--record``: the path of the file."""

    def record(*words: str) -> Path:
        file = tmp_path / "recording.json"
        result = proxywasm("run", *words, "--record", file)
        assert file.exists(), result.err
        return file

    return record


@pytest.mark.parametrize("case", CASES)
def test_each_form_passes(proxywasm, record, engine, tmp_path, case):
    file = record(*CASES[case])
    written = proxywasm("replay", file, "--to", "pytest")
    assert (written.code, written.err) == (0, "")
    namespace: dict[str, object] = {}
    exec(compile(written.out, "test_recorded.py", "exec"), namespace)
    with Harness(engine) as harness:
        namespace["test_recorded"](harness)  # type: ignore[operator]
    suite = tmp_path / "recorded.suite.yaml"
    suite.write_text(proxywasm("replay", file, "--to", "suite").out)
    result = proxywasm("test", suite)
    assert (result.code, result.lines[-1].partition(" in ")[0]) == (0, "# 1 passed, 0 failed"), result.out


def test_the_test_reads_as_one_that_a_person_wrote(proxywasm, record):
    file = record(*CASES["a local response"])
    assert proxywasm("replay", file, "--to", "pytest").out == f"""\
from proxywasm_host.testing import Response


def test_recorded(proxywasm):
    proxywasm.clock.set_time({Recording.load(file).start[0].time_ns // 1000 * 1000})
    proxywasm.http['idp'] = [Response(403, chunks=[b'no'])]
    f = proxywasm({AUTH!r}, 'callout:idp')
    outcome = f.request('POST', 'http://example.com/x', {{'authorization': 'Bearer good', 'content-length': '4'}}, \
chunks=[b'the rest'])

    assert outcome.status == 403
    assert outcome.upstream is None
    assert outcome.response.headers == {{'content-type': 'text/plain', 'content-length': '10'}}
    assert outcome.response.body == b'forbidden\\n'
    assert [call.cluster for call in outcome.callouts] == ['idp']
    assert outcome.failure is None
"""


def test_a_filter_that_is_not_started(proxywasm, record, engine):
    text = proxywasm("replay", record(PANICS, "/", "--config", "on_configure"), "--to", "pytest").out
    namespace: dict[str, object] = {}
    exec(text, namespace)
    with Harness(engine) as harness:
        namespace["test_recorded"](harness)  # type: ignore[operator]
    assert "    with pytest.raises(PluginError):\n" in text


def test_pytest_runs_it(command, folder):
    """With our plugin, and the filter beside the test."""
    assert command("run", "auth.wasm", "/x", *GOOD, "--callout", "idp=200", "--record", "it.json").code == 0
    folder.check(command("replay", "it.json", "--to", "pytest").out).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("words", "form", "said"),
    [
        (["/", "--chunk", "@binary"], "suite", "a body is not text, which a suite cannot express: use --to pytest"),
    ],
)
def test_what_a_suite_cannot_say(proxywasm, record, tmp_path, monkeypatch, words, form, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    file = record(HEADERS, *words, "--config", "x")
    result = proxywasm("replay", file, "--to", form)
    assert (result.code, result.err) == (2, f"error: {said}\n")
    assert proxywasm("replay", file, "--to", "pytest").code == 0


def test_what_other_requests_have_left_is_no_part_of_a_test(record):
    recording = Recording.load(record(*CASES["a local response"]))
    recording.outcome["status"] = 200
    with pytest.raises(Exception, match="as a test it would end with status 403, failed False, but the recording"):
        as_pytest(recording)


# -- Streams of gRPC, and time-outs --------------------------------------------------------------------------------------


def passes(text, engine):
    namespace: dict[str, object] = {}
    exec(compile(text, "test_recorded.py", "exec"), namespace)
    with Harness(engine) as harness:
        namespace["test_recorded"](harness)  # type: ignore[operator]
    return text


def test_a_conversation_with_a_real_server_becomes_a_test(engine, tmp_path):
    """Recorded in a WSGI server's thread: two messages are sent at once; metadata, an echo of each, and the end come."""
    server = GrpcServer()
    grpc = wsgi.Filter(FILTERS / "rust/grpc.wasm", configuration="stream:up,test.Echo,StreamEcho,hello")
    middleware = wsgi.ProxyWasmMiddleware(
        lambda _, start: [start("200 OK", []) and b"", b"Hello."],
        [grpc], clusters={"up": server.url}, record=Record(tmp_path), engine=engine.name,
    )  # fmt: skip
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "SERVER_NAME": "a", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1"}  # fmt: skip
    parts = middleware(environ, lambda *_: lambda _: None)
    assert b"".join(parts) == b"Hello."
    parts.close()
    middleware.close()
    server.stop()

    recording = Recording.load(next(tmp_path.glob("*.json")))
    text = passes(as_pytest(recording), engine)
    assert "from proxywasm_host.effects import GrpcInitialMetadata, GrpcTrailingMetadata\n" in text
    assert "proxywasm.grpc['up'] = [None, [GrpcInitialMetadata([(b':status', b'200')" in text
    assert "b'echo of hello', b'echo of hello', GrpcTrailingMetadata([" in text
    assert text.count("GrpcStatus(0)") == 1
    with pytest.raises(ConfigError, match="a suite cannot express answers of Redis, or on a gRPC stream: use --to pytest"):
        as_suite(recording)


def timed_out(engine, directory, script, whole, response=None):
    """The recording of a request that its carrier ended because it had waited for too long."""
    with Host(engine) as host:
        driver = Dispatcher(host, record=Record(directory))
        plugin = host.load_plugin(PROBE, configuration=script)
        stream = host.http_stream([plugin])
        driver.attach(stream, lambda _: None)
        stream.request_headers(REQUEST, whole)
        if response is not None:
            stream.response_headers([(b":status", b"200")], response)
        stream.time_out()
        driver.detach(stream)
        stream.close()
    return Recording.load(next(directory.glob("*.json")))


@pytest.mark.parametrize(
    ("script", "whole", "response", "status"),
    [
        ("@on_request_headers\nreturn 1", True, None, 504),
        ("", False, None, 408),
        ("@on_response_headers\nreturn 1", True, True, 504),
    ],
)
def test_a_time_out_becomes_a_test(engine, tmp_path, script, whole, response, status):
    recording = timed_out(engine, tmp_path, script, whole, response)
    text = passes(as_pytest(recording), engine)
    assert "    stream.time_out()\n    outcome = stream.result\n\n    assert outcome.status == " in text
    assert f"outcome.status == {status}\n" in text
    with pytest.raises(ConfigError, match="which a suite cannot express: use --to pytest"):
        as_suite(recording)


def test_half_a_response_that_was_waited_for_is_refused_with_what_to_do(engine, tmp_path):
    recording = timed_out(engine, tmp_path, "", whole=True, response=False)
    with pytest.raises(ConfigError, match=r"which a test cannot express: compare everything with proxywasm_host\.recording\.replay"):
        as_pytest(recording)
    assert replay(recording).first_difference is None


@pytest.mark.parametrize(
    "value", [None, 0, -7, b"", b"a\r\nb", RedisStatus("OK"), RedisError("ERR no"), [], [b"a", [1, None], RedisStatus("x")]]
)
def test_values_of_redis_come_back(value):
    assert value_of(resp(value)) == value

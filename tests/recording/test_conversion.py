"""A recording becomes a test for pytest, or a suite, and each is green at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxywasm_host.recording import Recording
from proxywasm_host.recording.conversion import as_pytest
from proxywasm_host.testing import Harness, RedisError, RedisStatus
from proxywasm_host.testing.callouts import resp, value_of
from tests.cli.conftest import AUTH, BODY, HEADERS, PANICS, PROBE, command, proxywasm
from tests.support import FILTERS
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
    with pytest.raises(Exception, match="as a test it would end with status 403, failed False, where the recording"):
        as_pytest(recording)


@pytest.mark.parametrize(
    "value", [None, 0, -7, b"", b"a\r\nb", RedisStatus("OK"), RedisError("ERR no"), [], [b"a", [1, None], RedisStatus("x")]]
)
def test_values_of_redis_come_back(value):
    assert value_of(resp(value)) == value

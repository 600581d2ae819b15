"""``proxywasm run --record`` and ``proxywasm replay``: a request goes into a file, and through filters once more."""

from __future__ import annotations

import json
import shutil

import pytest

from proxywasm_host import list_engines
from proxywasm_host.recording import Recording, replay
from tests.cli.conftest import AUTH, HEADERS, PROBE
from tests.support import FILTERS


@pytest.fixture
def record(proxywasm, tmp_path):
    """Run with ``--record``: the path of the file."""

    def record(*words: str):
        file = tmp_path / "recording.json"
        result = proxywasm("run", *map(str, words), "--record", str(file))
        assert result.code in (0, 5), result.err
        return file

    return record


def test_the_same_module_does_the_same(proxywasm, record, engine):
    file = record(AUTH, "POST", "/x", "-d", "body", "--config", "callout:idp", "--callout", "idp=403:no")
    again = proxywasm("replay", str(file))
    assert (again.code, again.err) == (0, "")
    assert again.out == f"{engine.name}: the same, {len(Recording.load(file).lines)} lines\n"
    lines = proxywasm("replay", str(file), "--transcript").out.splitlines()
    assert "  proxy_log(level=INFO, message='auth: denied with 403') = OK" in lines


def test_another_module_differs_and_where_is_told(proxywasm, record, engine):
    file = record(AUTH, "/x", "--config", "secret")
    other = proxywasm("replay", str(file), str(HEADERS))
    assert other.code == 1
    assert other.out == f"""\
{engine.name}: differs at line 5
  recorded: proxy_define_metric(type=COUNTER, name='auth.allowed') = OK 4
  now:      proxy_get_buffer_bytes(buffer=PLUGIN_CONFIGURATION, start=0, length=4294967295) = OK 'secret'
"""


@pytest.mark.several_engines
def test_all_engines_do_the_same(proxywasm, record):
    file = record(AUTH, "/x", "--config", "secret")
    names = [engine.name for engine in list_engines() if engine.usable]
    assert [line.partition(":")[0] for line in proxywasm("replay", str(file), "--engine", "all").out.splitlines()] == names


def test_time_and_random_numbers_are_those_of_the_recording(proxywasm, record):
    script = "\n@on_request_headers\nget_current_time_nanoseconds\nclock_time_get 1\nrandom_get 8"
    file = record(PROBE, "/x", "--config", script)
    again = proxywasm("replay", str(file), "--transcript")
    assert again.code == 0
    asked = [event for event in json.loads(file.read_text())["events"] if event.get("answers")]
    assert [name for event in asked for name, _ in event["answers"]] == ["time", "monotonic", "random"]
    assert str(asked[0]["answers"][1][1]) in again.out


def test_a_failure_is_recorded(proxywasm, record):
    file = record(PROBE, "/x", "--config", "\n@on_request_headers\ntrap")
    again = replay(Recording.load(file))
    assert (again.failure.callback, again.first_difference) == ("proxy_on_request_headers", None)
    assert any(line.endswith("= trap") for line in again.lines)


def test_bytes_of_all_kinds_come_back(proxywasm, record, tmp_path):
    (tmp_path / "body").write_bytes(b"\xff\x00")
    file = record(AUTH, "POST", "/x", "-d", f"@{tmp_path / 'body'}", "--config", "s", "-H", "authorization: Bearer s", "--property", "a.b:=5")
    recording = Recording.load(file)
    assert b"".join(event.given.get("data", b"") for event in recording.events) == b"\xff\x00"
    assert recording.properties == {"a.b": 5}
    file.write_text(recording.dump())
    assert Recording.load(file) == recording


def test_a_header_is_redacted(record):
    file = record(AUTH, "/x", "--config", "secret", "-H", "Authorization: Bearer secret", "--redact", "authorization")
    assert "Bearer secret" not in file.read_text()
    assert (b"authorization", b"redacted") in Recording.load(file).events[0].given["headers"]


def test_a_module_that_has_changed_is_told(proxywasm, record, tmp_path):
    shutil.copy(AUTH, tmp_path / "auth.wasm")
    file = record(tmp_path / "auth.wasm", "/x", "--config", "secret")
    shutil.copy(FILTERS / "rust" / "headers.wasm", tmp_path / "auth.wasm")
    again = proxywasm("replay", str(file))
    assert again.code == 1
    assert again.err == f"{tmp_path / 'auth.wasm'} is not the module that was recorded.\n"


def test_what_is_wrong_is_told(proxywasm, record, tmp_path):
    file = record(AUTH, "/x", "--config", "secret")
    several = proxywasm("replay", str(file), str(AUTH), str(AUTH))
    assert (several.code, several.err.splitlines()[-1]) == (2, f"Error: {file} has 1 filters, not 2")
    missing = proxywasm("replay", "none.json")
    assert (missing.code, missing.err.splitlines()[-1]) == (
        2, "Error: cannot read the recording none.json: No such file or directory",
    )  # fmt: skip
    (tmp_path / "other.json").write_text("{}")
    assert proxywasm("replay", str(tmp_path / "other.json")).err == f"error: {tmp_path / 'other.json'} is not a recording: KeyError('recording')\n"
    both = proxywasm("run", str(AUTH), "/x", "--engine", "all", "--record", str(file))
    assert "--record is for one engine" in both.err

from __future__ import annotations

import json
import os
import re

import pytest

from proxywasm_host.errors import ConfigError
from proxywasm_host.serve.access_log import Log, as_json, common
from proxywasm_host.serve.config import AccessLog
from proxywasm_host.serve.proxy import DETAILS
from tests.integrations.asgi import scope

ASKED = scope("POST", "/a?b=c", [("host", "example.com"), ("user-agent", 'x"y\n'), ("x-request-id", "7")])


def test_common():
    line = common(ASKED, 200, 1234, 0.1)
    assert re.fullmatch(
        r'192\.0\.2\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "POST /a\?b=c HTTP/1\.1" 200 1234', line
    )
    assert common(ASKED, 0, 0, 0.1).endswith('" 0 -')


def test_a_path_cannot_forge_a_line():
    forged = {**ASKED, "raw_path": b'/\n127.0.0.1 - "\xff\\'}
    assert r'"POST /\x0a127.0.0.1 - \"\xff\\?b=c HTTP/1.1"' in common(forged, 200, 0, 0)
    assert "\n" not in as_json(forged, 200, 0, 0)


def test_json():
    told = json.loads(as_json({**ASKED, "state": {DETAILS: "response_timeout"}}, 504, 24, 0.0123))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told.pop("time"))
    assert told == {
        "client": "192.0.2.1", "method": "POST", "scheme": "http", "host": "example.com", "path": "/a?b=c",
        "protocol": "HTTP/1.1", "status": 504, "bytes": 24, "duration_ms": 12.3, "user_agent": 'x"y\n',
        "request_id": "7", "details": "response_timeout",
    }  # fmt: skip


def test_a_process_without_standard_output(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)  # as Python has it if it was closed before
    Log(AccessLog()).write(ASKED, 200, 1, 0)


def test_where_it_goes(tmp_path, capsys):
    file = tmp_path / "access.log"
    for _ in range(2):
        log = Log(AccessLog(file=str(file)))
        log.write(ASKED, 200, 1, 0)
        log.close()
    assert len(file.read_text().splitlines()) == 2
    Log(AccessLog()).write(ASKED, 200, 1, 0)
    Log(AccessLog(format="off")).write(ASKED, 200, 1, 0)
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(ConfigError, match="cannot write the access log"):
        Log(AccessLog(file=str(tmp_path)))


def test_a_pipe_that_nobody_reads_keeps_nobody_waiting(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"cannot write the access log .*/pipe: No such device or address"):
        Log(AccessLog(file=str(pipe)))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = Log(AccessLog(file=str(pipe)))
    for _ in range(10_000):  # more than fits into it
        log.write(ASKED, 200, 1, 0)
    assert os.read(reader, 9) == b"192.0.2.1"
    os.close(reader)
    log.write(ASKED, 200, 1, 0)
    log.close()


def test_a_log_that_cannot_be_written_stops_no_request():
    log = Log(AccessLog(file="/dev/full"))
    for _ in range(1000):
        log.write(ASKED, 200, 1, 0)
    log.close()

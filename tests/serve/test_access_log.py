"""One line for each request, and what becomes of it where it cannot be written."""

from __future__ import annotations

import json
import os
import re

import pytest

from proxywasm_host.errors import ConfigError
from tests.serve.in_process import beside

ASKED = b'POST /a?b=c HTTP/1.1\r\nHost: example.com\r\nUser-Agent: x"y\t\xe9\r\nX-Request-Id: 7\r\nContent-Length: 2\r\n\r\nok'


def lines(origin, tmp_path, *asked: bytes, **log: str) -> list[str]:
    """The lines of these requests."""
    file = tmp_path / "access.log"
    with beside(
        {"upstream": {"url": origin.url, "timeout": 0.2}, "filters": [], "access_log": {"file": str(file), **log}}
    ) as served:
        for message in asked:
            served.told(message.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    return file.read_text().splitlines()


def test_common(origin, tmp_path):
    forged = b'GET /\xff"\\ HTTP/3.0\r\nHost: a\r\n\r\n'
    line, refused, none = lines(origin, tmp_path, ASKED, b"GET / HTTP/1.1\r\n\r\n", forged)
    size = len(origin.requests[0].as_json())
    assert re.fullmatch(
        rf'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{{2}}/\d{{4}}:\d\d:\d\d:\d\d \+0000\] "POST /a\?b=c HTTP/1\.1" 200 {size}',
        line,
    )
    assert refused.endswith('"GET / HTTP/1.1" 400 20')
    assert none.endswith(r'"- GET /\xef\xbf\xbd\"\\ HTTP/3.0 HTTP/1.1" 505 43')


def test_json(origin, tmp_path):
    async def never(request, reader, writer) -> bool:
        await reader.read()
        return False

    origin.answers["/never"] = never
    served, late = map(json.loads, lines(origin, tmp_path, ASKED, ASKED.replace(b"/a?b=c", b"/never"), format="json"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", served.pop("time"))
    assert 0 < served.pop("duration_ms") < 10_000
    assert served == {
        "client": "127.0.0.1", "method": "POST", "scheme": "http", "host": "example.com", "path": "/a?b=c", "protocol": "HTTP/1.1",
        "status": 200, "bytes": len(origin.requests[0].as_json()), "user_agent": 'x"y\t\ufffd', "request_id": "7", "details": None,
        "route": None, "upstream": f"127.0.0.1:{origin.port}",
    }  # fmt: skip
    assert (late["status"], late["bytes"], late["details"]) == (504, 24, "response_timeout")


def test_lines_are_appended_and_none_is_written_if_it_is_off(origin, tmp_path):
    for number in (1, 2):
        assert len(lines(origin, tmp_path, ASKED)) == number
    with beside(
        {"upstream": origin.url, "filters": [], "access_log": {"format": "off", "file": str(tmp_path / "none")}}
    ) as served:
        assert served.answer(ASKED).status == 200
    assert not (tmp_path / "none").exists()


def test_where_it_cannot_be_written(origin, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot write the access log .*: Is a directory"):
        lines(origin, tmp_path, file=str(tmp_path))


def test_a_disk_that_is_full_stops_no_request(origin):
    with beside({"upstream": origin.url, "filters": [], "access_log": {"file": "/dev/full"}}) as served:
        assert {served.answer(ASKED).status for _ in range(50)} == {200}


def test_a_pipe_that_nobody_reads_keeps_nobody_waiting(origin, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    settings = {"upstream": origin.url, "filters": [], "access_log": {"file": str(pipe)}}
    with (
        pytest.raises(ConfigError, match=r"cannot write the access log .*/pipe: No such device or address"),
        beside(settings),
    ):
        pass
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with beside(settings) as served, served.connect() as client:
            for _ in range(40):  # more than fits into it
                client.send(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 4000))
                assert client.answer().status == 200
            assert os.read(reader, 9) == b"127.0.0.1"
    finally:
        os.close(reader)


def test_a_process_without_standard_output(origin):
    """As it may be started; its lines go nowhere."""
    before = os.dup(1)
    os.close(1)
    try:
        with beside({"upstream": origin.url, "filters": [], "access_log": {"format": "common"}}) as served:
            assert served.answer(ASKED).status == 200
    finally:
        os.dup2(before, 1)
        os.close(before)

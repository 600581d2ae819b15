"""Every carrier records requests: a real uvicorn, a WSGI server's thread. Each replays alone.

``proxywasm serve`` in tests/serve/test_recording.py, as it needs the data plane.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from proxywasm_host import Match, Rule, by_rule, list_engines
from proxywasm_host.integrations import asgi, wsgi
from proxywasm_host.recording import Record, Recording, replay
from tests.cli.conftest import command
from tests.serve.conftest import AUTH, PANICS, origin
from tests.support import FILTERS
from tests.under_uvicorn import under_uvicorn

__all__ = ["command", "origin"]

PROBE = str(FILTERS / "c/probe_0_2_1.wasm")
ASKING = "@on_request_headers\nget_current_time_nanoseconds\nclock_time_get 1\nrandom_get 8\nset_shared_data key one 0\nget_shared_data key"


def recordings(directory: Path, count: int) -> list[Recording]:
    """The recordings of a directory, once there are so many: the last is written after its response was sent."""
    until = time.monotonic() + 10
    while len(files := sorted(directory.glob("*.json"))) < count:
        assert time.monotonic() < until, f"{files}, where {count} were expected"
        time.sleep(0.01)
    return [Recording.load(file) for file in files]


@pytest.fixture
def uvicorned() -> Iterator[Callable[..., str]]:
    """Serve an ASGI application by uvicorn, in a thread: its URL."""
    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(under_uvicorn(app))


async def hello(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = b""
    while (message := await receive()).get("more_body") or message.get("body"):
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Hello, ", "more_body": True})
    await send({"type": "http.response.body", "body": body})


def test_a_failing_request_in_uvicorn(uvicorned, engine, tmp_path, command):
    """Recorded, replayed from the file on the same engine, and differing with a module that was mended."""
    url = uvicorned(
        asgi.ProxyWasmMiddleware(
            hello,
            [asgi.Filter(PANICS, configuration="response_headers")],
            record=Record(tmp_path, failures_only=True),
            engine=engine.name,
        )
    )
    assert httpx2.post(f"{url}/x?y=1", content=b"body", headers={"x-a": "b"}).status_code == 503
    [recording] = recordings(tmp_path, 1)
    assert recording.outcome["status"] == 503
    assert recording.outcome["failure"].startswith("panics failed in proxy_on_response_headers: ")
    assert [event.event for event in recording.events][:2] == ["request_headers", "request_body"]
    assert recording.events[1].given["data"] == b"body"
    assert recording.properties["source.address"].startswith("127.0.0.1:")

    [file] = tmp_path.glob("*.json")
    assert command("replay", file).out == f"{engine.name}: the same, {len(recording.lines)} lines\n"
    mended = command("replay", file, FILTERS / "rust/headers.wasm")
    assert (mended.code, mended.lines[0]) == (1, f"{engine.name}: differs at line 4")


@pytest.mark.several_engines
def test_a_recording_is_the_same_on_each_engine(uvicorned, tmp_path, command):
    url = uvicorned(asgi.ProxyWasmMiddleware(hello, [PROBE], record=Record(tmp_path)))
    assert httpx2.get(url).status_code == 200
    recordings(tmp_path, 1)
    everywhere = command("replay", next(tmp_path.glob("*.json")), "--engine", "all")
    assert everywhere.code == 0
    assert len(everywhere.lines) == len([engine for engine in list_engines() if engine.usable])


def test_what_the_outside_world_answered_is_answered_again(uvicorned, engine, tmp_path):
    """Time, random numbers and shared data, of the second request, in a process that has seen none before."""
    filters = [asgi.Filter(PROBE, configuration=f"\n{ASKING}")]
    url = uvicorned(asgi.ProxyWasmMiddleware(hello, filters, record=Record(tmp_path), engine=engine.name))
    httpx2.get(url)
    httpx2.get(url)
    _, second = recordings(tmp_path, 2)
    [asked] = [event for event in second.events if event.answers]
    assert [name for name, _ in asked.answers] == ["time", "monotonic", "random", "stored", "shared_data"]
    again = replay(second)
    assert (again.engine, again.first_difference) == (engine.name, None)


def test_callouts_are_answered_as_they_were(uvicorned, origin, engine, tmp_path):
    async def check(request, reader, writer):
        status = b"200 OK" if request["authorization"] == "Bearer good-token" else b"403 No"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
        return True

    origin.answers["/check"] = check
    filters = [asgi.Filter(AUTH, configuration="callout:idp")]
    middleware = asgi.ProxyWasmMiddleware(
        hello, filters, clusters={"idp": origin.url}, record=Record(tmp_path), engine=engine.name
    )
    url = uvicorned(middleware)
    assert httpx2.get(url, headers={"authorization": "Bearer good-token"}).status_code == 200
    assert httpx2.get(url, headers={"authorization": "Bearer wrong-token"}).status_code == 403
    for recording in recordings(tmp_path, 2):
        assert (recording.callouts, replay(recording).first_difference) == ({"idp": 1}, None)
        text = recording.dump()
        assert "-token" not in text
        assert '"Bearer *1****' in text


def test_wsgi_records_too(engine, tmp_path):
    def app(environ, start_response):
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"Hello, ", environ["wsgi.input"].read()]

    middleware = wsgi.ProxyWasmMiddleware(app, [PROBE], record=Record(tmp_path), engine=engine.name)
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/x", "CONTENT_LENGTH": "4", "wsgi.url_scheme": "http",
        "SERVER_NAME": "example.com", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
    }  # fmt: skip
    environ["wsgi.input"] = io.BytesIO(b"body")
    parts = middleware(environ, lambda *_: None)
    assert b"".join(parts) == b"Hello, body"
    parts.close()
    middleware.close()
    [recording] = recordings(tmp_path, 1)
    assert [event.given.get("data") for event in recording.events if "body" in event.event] == [
        b"body", b"Hello, ", b"body", b"",
    ]  # fmt: skip
    assert replay(recording).first_difference is None


def test_what_a_rule_chose_is_recorded_and_replayed(engine, tmp_path):
    """A request of one configuration among several, and one that the filter is not for."""
    headers = asgi.Filter(str(FILTERS / "rust/headers.wasm"), name="headers", configuration="none")
    rules = [Rule(Match(paths=["/a"]), "a"), Rule(Match(paths=["/off"]), None)]

    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ.get("HTTP_X_WASM", "").encode()]

    record = Record(tmp_path)
    middleware = wsgi.ProxyWasmMiddleware(app, by_rule(headers, rules), record=record, engine=engine.name)
    environ = {
        "REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "SERVER_NAME": "example.com", "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": io.BytesIO(),
    }  # fmt: skip
    answers = []
    for path in ("/a", "/other", "/off"):
        parts = middleware({**environ, "PATH_INFO": path}, lambda *_: None)
        answers.append(b"".join(parts))
        parts.close()
    middleware.close()
    assert answers == [b"a", b"none", b""]
    found = recordings(tmp_path, 3)
    assert [[filter.configuration for filter in recording.filters] for recording in found] == [[b"a"], [b"none"], []]
    assert [replay(each).first_difference for each in found] == [None] * 3
    other = found[1]
    assert [(place, each.configuration) for place, each in other.neighbours] == [(0, b"a")]
    assert replay(other, [FILTERS / "rust/panics.wasm"]).first_difference is not None

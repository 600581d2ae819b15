"""Requests that a filter holds end all the same: when its guest fails elsewhere, and when nothing happens for too long."""

from __future__ import annotations

import asyncio
import logging
import threading

import anyio
import pytest

from proxywasm_host import HeaderLimits
from proxywasm_host.integrations.exchange import StreamReset
from proxywasm_host.runtime.effects import HttpCall, HttpCallReply
from tests.integrations.asgi import Server, respond, scope
from tests.integrations.conftest import BACKENDS
from tests.integrations.middlewares import Application

CALL = 'http_call upstream :method=GET&:path=/c&:authority=au "" "" 1000\n'
PAUSE = "@on_request_headers\nget_header_map_value 0 x-go\nif_status 0\nreturn 0\n"
TRAPS_IN = {
    "a callout's reply": PAUSE + CALL + "return 1\n@on_http_call_response\ntrap\n",
    "a tick": PAUSE + "set_tick_period_milliseconds 5\nreturn 1\n@on_tick\ntrap\n",
    "a queue": "@on_configure\nregister_shared_queue q\n" + PAUSE + "enqueue_shared_queue 1 x\nreturn 1\n@on_queue_ready\ntrap\n",
}  # fmt: skip
LATER = {"fail_closed": 503, "fail_open": 200, "fail_reload": 200}


@pytest.fixture
def calling(carry):
    """As `carry`, with a cluster whose calls are answered."""

    def make(script, policy=None, **options):
        both = carry(script, policy, clusters={"upstream": "http://127.0.0.1:1"}, **options)

        async def answer(callout):
            await anyio.lowlevel.checkpoint()
            return HttpCallReply([(b":status", b"200")])

        both.app._clients = {
            HttpCall: answer if both.kind == "asgi" else lambda _: HttpCallReply([(b":status", b"200")])
        }
        return both

    return make


@pytest.mark.parametrize("policy", LATER)
@pytest.mark.parametrize("where", TRAPS_IN)
def test_a_guest_that_fails_elsewhere_ends_the_requests_that_it_holds(calling, caplog, where, policy):
    """At once: the time-out for streams without progress would come in five minutes."""
    served = calling(TRAPS_IN[where], policy)
    assert served.ask({}, {"x-go": "1"}) == [503, LATER[policy]]
    assert [record.levelname for record in caplog.records if "failed in a callback" in record.message] == ["ERROR"]


@pytest.mark.parametrize("where", TRAPS_IN)
def test_a_guest_that_fails_elsewhere_lets_go_what_it_holds_where_the_profile_says_so(calling, where):
    assert calling(TRAPS_IN[where], "fail_open", profile="spec").ask({}, {"x-go": "1"}) == [200, 200]


@pytest.mark.parametrize(("phase", "status"), [("request", 504), ("response", 504)])
def test_a_filter_that_holds_for_ever(carry, caplog, phase, status):
    answer = carry(f"@on_{phase}_headers\nreturn 1\n", stream_idle_timeout=0.1).get(target="/x?secret=1")
    assert (answer.status, answer.body) == (status, b"stream timeout")
    assert "GET '/x' made no progress for 0.1 seconds and timed out" in caplog.text
    assert f"it waited for plugin 'probe', which holds the {phase}" in caplog.text


def test_an_application_that_answers_late_is_not_heard(carry, monkeypatch):
    """WSGI has no way to stop it: its thread is its own."""
    timed_out = threading.Event()
    monkeypatch.setattr(logging.getLogger("proxywasm_host.driver"), "warning", lambda *_: timed_out.set())

    class Late(Application):
        async def asgi(self, scope, receive, send):
            while (await receive())["type"] != "http.disconnect":
                pass
            await respond(send, 200, [], b"late")

        def wsgi(self, environ, start_response):
            assert timed_out.wait(10)
            start_response("200 OK", [])
            return [b"late"]

    answer = carry(application=Late(), stream_idle_timeout=0.1).get()
    assert timed_out.is_set()
    assert (answer.status, answer.body) == (504, b"stream timeout")


@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.anyio
async def test_an_application_that_hangs_half_way_is_cut(wrap):
    """The server is told by an exception, as of any response that a filter breaks off."""
    ended = []

    async def hangs(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    server = Server()
    with pytest.raises(StreamReset, match="stream_idle_timeout"):
        await wrap(hangs, "", stream_idle_timeout=0.1)(scope(), server.receive, server.send)
    await anyio.lowlevel.checkpoint()  # nothing of the cancellation is left
    assert (server.body, server.complete, ended) == (b"one", False, ["cancelled"])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("error", [None, KeyError])
@pytest.mark.anyio
async def test_the_cancellation_of_an_application_that_ends_otherwise_is_taken_back(wrap, error):
    """It returns, or raises something else: the server's task is none that somebody has cancelled."""

    async def hangs(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    server = Server()
    with pytest.raises(StreamReset, match="stream_idle_timeout"):
        await wrap(hangs, "", stream_idle_timeout=0.1)(scope(), server.receive, server.send)
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.anyio
async def test_a_client_that_sends_no_more(wrap, reads):
    """While the application waits for the rest, or before it is called."""
    told = []

    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            told.append(message["body"])
        told.append(message["type"])

    server = Server([b"a", b"b"])
    server.incoming.pop()
    script = "" if reads else "@on_request_body\nset_buffer_bytes 0 0 100 x\nreturn 1\n"
    await wrap(app, script, stream_idle_timeout=0.1)(
        scope("POST", "/", [("content-length", "2")]), server.receive, server.send
    )
    assert (server.status, server.body) == (408, b"stream timeout")
    assert told == ([b"a", "http.disconnect"] if reads else [])


@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.anyio
async def test_the_server_may_cancel_what_is_cancelled(wrap):
    """What others cancel is theirs."""
    server = Server()
    app = wrap(lambda *_: anyio.sleep_forever(), "")
    with anyio.move_on_after(0.05) as scoped:
        await app(scope(), server.receive, server.send)
    assert scoped.cancelled_caught


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 431), (1100, 431)])
def test_a_client_with_many_headers(carry, log, count, status):
    served = carry("@on_request_headers\nsay seen\n")
    answer = served.get(headers=[(f"x-{number}", "1") for number in range(count)])
    assert (answer.status, log.take()) == (status, ["seen"] if status == 200 else [])
    assert served.get().status == 200


def test_a_client_with_large_headers(carry):
    served = carry("")
    assert served.get(headers=[("x-a", "a" * 60 * 1024)]).status == 431


def test_an_application_with_many_headers(carry):
    application = Application(headers=[(f"x-{number}", "1") for number in range(1100)])
    assert carry(application=application).get().status == 502


def test_limits_on_headers_are_yours(carry):
    headers = [(f"x-{number}", "1") for number in range(300)]
    assert carry(header_limits=HeaderLimits(300, 10_000)).get(headers=headers).status == 200
    assert carry(header_limits=HeaderLimits(299)).get(headers=headers).status == 431
    assert carry(header_limits=None).get(headers=headers * 4).status == 200

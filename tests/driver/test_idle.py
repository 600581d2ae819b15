"""Streams without progress are ended: looked at a number of times, they are found, and those that move are not."""

from __future__ import annotations

import pytest

from proxywasm_host.driver.dispatch import IDLE_CHECKS
from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.runtime.effects import RequestHeaders, ResetStream, ResponseBody, ResponseHeaders
from tests.support import REQUEST, RESPONSE

PAUSES = "@on_{}_headers\nreturn 1\n"
CALLS = '@on_request_headers\nhttp_call upstream :method=GET&:path=/&:authority=a "" "" 0\nreturn 1\n'


@pytest.fixture
def driven(host, probe):
    """A stream behind a script, what came out of it, and a function that looks at it so many times."""

    def make(script):
        driver = ThreadDriver(host, stream_idle_timeout=300.0)
        stream = host.http_stream([probe(script)])
        effects: list = []
        driver.attach(stream, effects.append)

        def look(times=IDLE_CHECKS + 1):
            for _ in range(times):
                driver.check_idle()
            taken = list(effects)
            effects.clear()
            return taken

        return driver, stream, look

    return make


def statuses(effects) -> list[bytes]:
    return [dict(effect.headers)[b":status"] for effect in effects if isinstance(effect, ResponseHeaders)]


def test_a_filter_that_holds_a_request_for_ever(driven, caplog):
    _, stream, look = driven(CALLS)
    stream.request_headers(REQUEST, True)  # nobody performs the callout
    assert look(IDLE_CHECKS) == []
    head, body = look(1)
    assert (statuses([head]), body.data) == ([b"504"], b"stream timeout")
    assert stream.details == "stream_idle_timeout"
    [record] = [record for record in caplog.records if "timed out" in record.message]
    assert (record.name, record.levelname) == ("proxywasm_host.driver", "WARNING")
    assert record.message.startswith(
        "GET '/a' made no progress for 300 seconds and timed out; it waited for plugin 'probe', "
    )
    assert "'upstream'" in record.message
    assert look() == []


def test_a_client_that_sends_no_more(driven):
    driver, stream, look = driven("")
    driver.perform(stream.request_headers(REQUEST))
    driver.perform(stream.request_body(b"x"))
    assert statuses(look()) == [b"408"]


def test_an_upstream_that_does_not_answer(driven, caplog):
    driver, stream, look = driven("")
    driver.perform(stream.request_headers(REQUEST, True))
    assert statuses(look()) == [b"504"]
    assert "it waited for the response" in caplog.text


def test_a_response_that_stops_half_way_is_reset(driven):
    driver, stream, look = driven("")
    driver.perform(stream.request_headers(REQUEST, True))
    driver.perform(stream.response_headers(RESPONSE))
    effects = look()
    assert [type(effect) for effect in effects] == [RequestHeaders, ResponseHeaders, ResetStream]
    assert look() == []


def test_what_comes_in_is_progress(driven):
    """Though nothing comes out."""
    driver, stream, look = driven("@on_request_body\nreturn 1\n")
    driver.perform(stream.request_headers(REQUEST))
    for _ in range(20):
        driver.perform(stream.request_body(b"x"))
        assert statuses(look(IDLE_CHECKS)) == []
    assert statuses(look()) == [b"408"]


def test_what_comes_out_is_progress(driven):
    """Though nothing comes in: a filter answers part by part."""
    driver, stream, look = driven("@on_request_headers\nreturn 1\n")
    driver.perform(stream.request_headers(REQUEST, True))
    for _ in range(20):
        driver.perform([ResponseBody(b"x", False, stream)])
        assert statuses(look(IDLE_CHECKS)) == []
    assert statuses(look()) == [b"504"]


def test_a_stream_that_is_done_is_left_alone(driven):
    driver, stream, look = driven("")
    driver.perform(stream.request_headers(REQUEST, True))
    driver.perform(stream.response_headers(RESPONSE, True))
    look()
    assert look() == []
    driver.detach(stream)
    driver.perform(stream.close())
    assert look() == []

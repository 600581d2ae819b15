"""Filters that feed themselves leave requests their time, and end when they are asked to."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.serve.conftest import Served
from tests.support import FILTERS

CALL = 'http_call closed :method=GET&:path=/&:authority=a "" "" 0'
SCRIPTS = {
    "a queue": "@on_configure\nregister_shared_queue q\nenqueue_shared_queue 1 a\n@on_queue_ready\nenqueue_shared_queue 1 a",
    "callouts that fail at once": f"@on_configure\nrepeat 20\n{CALL}\n@on_http_call_response\n{CALL}\n{CALL}",
    "ticks": "@on_configure\nset_tick_period_milliseconds 1\n@on_tick\nrepeat 2000\nget_property request&path",
}


@pytest.fixture
def closed() -> Iterator[int]:
    """A port at which nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_filter_that_feeds_itself(name: str, serve: Callable[..., Served], closed: int) -> None:
    served = serve(
        settings={
            "filters": [{"file": str(FILTERS / "c/probe_0_2_1.wasm"), "configuration": SCRIPTS[name]}],
            "clusters": {"closed": f"http://127.0.0.1:{closed}"},
        }
    )
    took = []
    for _ in range(20):
        before = time.monotonic()
        assert served.get("/").status_code == 200
        took.append(time.monotonic() - before)
    assert sorted(took)[10] < 1, "seconds, where requests wait for what goes on without end"
    before = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - before < 10, "the server does not end"


def test_a_filter_that_calls_its_own_server_twice_for_each_request(serve: Callable[..., Served]) -> None:
    """Each of these requests brings two more: as many are under way as a cluster allows, and others are answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = '@on_request_headers\nrepeat 2\nhttp_call self :method=GET&:path=/&:authority=a "" "" 0'
    served = serve(
        listen=f"127.0.0.1:{port}",
        settings={
            "filters": [{"file": str(FILTERS / "c/probe_0_2_1.wasm"), "configuration": script}],
            "clusters": {"self": f"http://127.0.0.1:{port}"},
        },
    )
    took = []
    for _ in range(20):
        before = time.monotonic()
        assert served.get("/").status_code == 200
        took.append(time.monotonic() - before)
    assert sorted(took)[10] < 5, "seconds, where requests wait for what goes on without end"
    before = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - before < 10, "the server does not end"

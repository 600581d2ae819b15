"""Filters of several processes of ``serve`` share data, queues and metrics."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from proxywasm_host.services.shared.directory import path_of
from tests.redis_server import Server
from tests.support import FILTERS

TICKER = str(FILTERS / "rust/ticker.wasm")
PROBE = str(FILTERS / "c/probe_0_2_1.wasm")
TRIED = 40


@pytest.fixture(params=["", "processes", "redis"])
def shared(request, tmp_path):
    """What `--shared` says, or nothing."""
    if request.param != "redis":
        yield {"shared": request.param} if request.param else {}
        return
    server = Server(tmp_path)
    yield {"shared": f"{server.url}?timeout=5"}
    server.stop()


def lines(log: str, what: str) -> Counter[int]:
    """Numbers in the log, but for those of the process that only tries whether all can be loaded."""
    return Counter(n for n in map(int, re.findall(rf"ticker: {what} (\d+)$", log, re.MULTILINE)) if n > TRIED)


def test_two_processes_count_as_one_and_each_message_is_taken_once(serve, shared):
    served = serve(TICKER, vm_config="20", workers=2, access_log="off", **shared)
    served.wait_for(r"dequeued tick 80\b")
    before = served.metrics()["wasmcustom_ticker_ticks_total{name=\"ticker.ticks\"}"]
    shown = int(served.get().headers["x-ticks"])
    after = served.metrics()["wasmcustom_ticker_ticks_total{name=\"ticker.ticks\"}"]
    assert 80 - TRIED <= before <= after
    assert before - 2 <= shown <= after + 2  # a tick is counted in the data first, then in the metric
    assert served.stop() == 0
    ticks, taken = lines(served.log, "tick"), lines(served.log, "dequeued tick")
    assert set(ticks.values()) == {1}
    assert not taken - ticks
    assert sum((ticks - taken).values()) <= 4  # of the last moment
    assert not list(Path("/dev/shm").glob(path_of(f"serve-{served.process.pid}*").name))


def test_memory_is_of_each_process(serve):
    served = serve(TICKER, vm_config="20", workers=2, access_log="off", shared="memory")
    served.wait_for(r"dequeued tick 60\b")
    until = time.monotonic() + 20
    while lines(served.log, "tick")[60] < 2:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_worker_that_is_killed_loses_nothing_that_was_counted(serve):
    served = serve(TICKER, vm_config="20", workers=2, access_log="off")
    served.wait_for(r"dequeued tick 60\b")
    victim = served.live()["workers"][0]["pid"]
    os.kill(victim, 9)
    served.wait_for(rf"process {victim} has died: starting another")
    last = max(lines(served.log, "tick"))
    served.wait_for(rf"dequeued tick {last + 100}\b")
    assert set(lines(served.log, "tick").values()) == {1}


def test_redis_that_is_not_there_is_no_hang_and_no_end(serve):
    script = "@on_request_headers\nget_shared_data k\nset_shared_data k v 0\nenqueue_shared_queue 1 m\n"
    settings = {"filters": [{"file": PROBE, "configuration": script}], "shared": "redis://127.0.0.1:1?timeout=0.2"}
    served = serve(settings=settings, workers=2)
    began = time.monotonic()
    assert [served.get().status_code for _ in range(4)] == [200] * 4
    assert time.monotonic() - began < 5
    assert len(re.findall(r"(?:get_shared_data|set_shared_data|enqueue_shared_queue)\(.*\) = 10", served.log)) == 12

"""VMs that are used up are replaced beside their requests, of which none is lost."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import FILTERS

PROBE = str(FILTERS / "c/probe_0_2_1.wasm")
GROWS = "@on_request_headers\ngrow 4\nset a $mem\nadd_header_map_value 2 x-unused 1\n@on_response_headers\nadd_header_map_value 2 x-filtered yes\n"
POLICIES = {"memory": "4MiB", "requests": 30, "age": 0.7}


def recycled(served) -> float:
    return served.metrics()['proxywasm_reloads_total{outcome="recycled"}']


def test_no_request_is_lost_where_memory_grows(on_engine):
    loses_none(on_engine, "memory")


@pytest.mark.parametrize("policy", ["requests", "age"])
def test_no_request_is_lost(serve, policy):
    loses_none(serve, policy)


def loses_none(serve, policy):
    filters = [{"file": PROBE, "configuration": GROWS}]
    served = serve(settings={"filters": filters, "recycle": {policy: POLICIES[policy]}, "log_level": "error"})
    answers = []
    with ThreadPoolExecutor(4) as clients:
        until = time.monotonic() + 60
        while recycled(served) < 2:
            assert time.monotonic() < until, served.log
            answers += clients.map(lambda _: served.get(), range(20))
    assert {(answer.status_code, answer.headers["x-filtered"]) for answer in answers} == {(200, "yes")}
    generation = next(value for name, value in served.metrics().items() if name.startswith("proxywasm_vm_generation{"))
    assert generation >= 3
    assert re.search(r"the VM of probe_0_2_1 (has|is) .*: filters have new VMs", served.log)


def test_a_request_under_way_ends_on_its_vm(on_engine, origin):
    begun = threading.Event()
    answer = asyncio.Event()

    async def late(request, reader, writer):
        begun.set()
        await answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        return True

    origin.answers["/slow"] = late
    filters = [{"file": PROBE, "configuration": GROWS + "@on_log\nsay ended\n"}]
    served = on_engine(settings={"filters": filters, "recycle": {"age": 0.5}})
    with ThreadPoolExecutor(1) as client:
        slow = client.submit(served.get, "/slow")
        assert begun.wait(30)
        served.wait_for("filters have new VMs")
        assert not slow.done()
        origin.loop.call_soon_threadsafe(answer.set)
        response = slow.result(30)
    assert (response.status_code, response.headers["x-filtered"]) == (200, "yes")


def test_what_cannot_be_loaded_anew_goes_on(serve):
    once = "@on_configure\nget_shared_data was\nif_status 0\nreturn 0\nset_shared_data was 1 0\n"
    filters = [{"file": PROBE, "configuration": once}]
    served = serve(settings={"filters": filters, "recycle": {"age": 1.5}})
    served.wait_for("but no new VM can be loaded: the old one continues")
    assert served.get().status_code == 200


def test_a_policy_says_when(serve):
    served = serve(settings={"filters": [PROBE], "recycle": {}})
    assert served.process.wait(30) != 0
    assert "recycle: give memory, requests or age" in served.log

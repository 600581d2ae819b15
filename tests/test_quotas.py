"""What a filter can make the host keep is bounded: what is beyond is refused in words, and what was there stays."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest

from proxywasm_host import Host
from proxywasm_host.services import InMemoryMetrics, InMemorySharedData, InMemorySharedQueues

INTERNAL_FAILURE = 10


def statuses(log) -> list[int]:
    """Of the hostcalls since it was last asked."""
    return [int(line.rpartition(") = ")[2].split(" ")[0]) for line in log.take() if ") = " in line]


@pytest.fixture
def services(services):
    """Room for little."""
    return replace(
        services,
        shared_data=InMemorySharedData(5000),
        shared_queues=InMemorySharedQueues(5000),
        metrics=InMemoryMetrics(5000),
    )


SERVICES = {
    # a hostcall that is repeated, one that needs what the first has kept, one that gives room, and the one that was refused
    "shared data": ("set_shared_data {n} fill:x:500 0", "get_shared_data A", 'set_shared_data A "" 0', "the shared data of vm_id 'vm'"),
    "messages": ("enqueue_shared_queue 1 fill:x:500", "resolve_shared_queue vm q", "dequeue_shared_queue 1", "the shared queues of vm_id 'vm'"),
    "queues": ("register_shared_queue {n}", "resolve_shared_queue vm q", None, "the shared queues of vm_id 'vm'"),
    "metrics": ("define_metric 0 {n}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "increment_metric 4 1", None, "the metrics"),
}


@pytest.mark.parametrize(("more", "still", "room", "what"), SERVICES.values(), ids=SERVICES)
def test_services(host: Host, probe, log, trace, more, still, room, what):
    calls = [more.format(n=letter) for letter in string.ascii_uppercase]
    script = "\n".join([*calls, still, *([room, calls[-1]] if room else [])])
    plugin = probe(f"@on_configure\nregister_shared_queue q\n@on_foreign_function\n{script}", vm_id="vm")
    log.take()
    trace.hostcalls.clear()
    plugin.foreign_function(0, b"")
    answers = statuses(log)
    kept = answers[:26].count(0)
    assert 0 < kept < 20
    assert answers[:26] == [0] * kept + [INTERNAL_FAILURE] * (26 - kept)
    assert answers[26:] == ([0, 0, 0] if room else [0])
    refused = next(call for call in trace.hostcalls if "INTERNAL_FAILURE" in call)
    assert f"{what} have " in refused
    assert refused.endswith("more would be beyond the limit of 5000")
    assert plugin.failure is None

"""Each server with filters does the work, and the report can be written from the results."""

from __future__ import annotations

from shutil import which

import pytest

from benchmarks import gateway, growth
from benchmarks.machine import description
from benchmarks.servers import (
    FILTERS,
    LOADS,
    PROXIES,
    SERVERS,
    Memory,
    Sample,
    added,
    document,
    inserted,
    measure,
    measure_loads,
    ratio,
)
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.setup import query


def test_every_server_does_the_work_under_load():
    samples, memory = measure(rounds=1, seconds=1, filters=[1], connections=10)
    assert set(samples) == {(kind, 1) for kind in SERVERS}
    assert all(min(one.requests, one.processor, one.loaded) > 0 for rounds in samples.values() for one in rounds)
    assert set(memory) == set(PROXIES)
    assert all(one.whole > 1 << 20 for one in memory.values())


def test_other_filters_and_bodies():
    shares = measure_loads(rounds=1, seconds=1)
    assert set(shares) == set(LOADS)
    assert min(shares.values()) > 0


def test_the_report_tells_what_filters_add():
    costs = {"envoy": 10e-6, "serve": 4e-6, "middleware": 5e-6}
    samples = {
        (kind, count): [
            Sample(1000 / number, 1e-3, 2e-3, 1e-4 + cost * count, cost * (5 + 2 * count), 1 / cost)
            for number in (1, 2, 3)
        ]
        for kind, cost in costs.items()
        for count in FILTERS
    }
    assert [round(ratio(samples, "serve", *of), 3) for of in ((5,), (5, 1))] == [0.4, 0.4]
    assert [round(cost * 1e6, 3) for cost in added(samples, "middleware", 1)] == [5.0] * 3
    text = document(samples, {"a filter in Go": 0.75}, {"serve": Memory(60_000_000, 34_000)}, description())
    assert "| Envoy | 0 | 500 | 1.00 ms | 2.0 ms | 100.0 µs |  |  | 50.0 µs |" in text
    assert "|  | 5 | 500 | 1.00 ms | 2.0 ms | 120.0 µs | 4.0 µs | 4.0 µs | 60.0 µs |" in text
    assert text.count("the first one 0.40 in `serve` and 0.50 in the middleware") == 2
    assert "| processor time of a request, 5 filters | 0.40 |" in text
    assert "| processor time of a request, a filter in Go | 0.75 |" in text
    assert "| requests/s, 1 filter, 64 connections | 2.50 |" in text
    assert "| 99 % of latencies, 1 filter, 16 connections | 1.00 |" in text
    assert "`proxywasm serve` 60 MB and 34.0 kB" in text


def test_serve_grows_with_all_that_it_is_given():
    grown = growth.measure(rounds=1, seconds=1, streams=50)
    assert (tuple(grown.filters), tuple(grown.headers)) == (growth.FILTERS, growth.HEADERS)
    assert min(*grown.filters.values(), *grown.headers.values(), *(min(both) for both in grown.threads.values())) > 0
    assert set(grown.slow) == set(PROXIES)
    assert all(one.processor > 0 for one in grown.slow.values())


def test_the_section_on_growth_tells_what_each_further_one_adds():
    times = {1: 10e-6, 5: 14e-6, 10: 24e-6}
    grown = growth.Growth(times, times, {1: (1000.0, 1e-5), 2: (1500.0, 2e-5)}, {"serve": growth.Slow(20_000, 3e-5)})
    text = "\n".join(growth.section(grown, 1.0))
    assert "| filters | 1 | 5 | 10 |" in text
    assert "| processor time | 10.0 µs | 14.0 µs | 24.0 µs |" in text
    assert "| each further one | | 1.00 µs | 2.00 µs |" in text
    assert "| 2 | 1,500 | 20.0 µs |" in text
    assert "`proxywasm serve` 20.0 kB a stream, 30 µs a chunk" in text


def test_every_way_inside_a_gateway_does_the_work():
    ways = ["lua", "rust"]
    samples = gateway.measure(rounds=1, seconds=1, ways=ways)
    assert list(samples) == ways
    assert all(min(one.requests, one.loaded, one.alone) > 0 for rounds in samples.values() for one in rounds)


def test_the_section_tells_what_each_way_adds_and_stands_where_it_stood():
    costs = dict.fromkeys(gateway.WAYS, 0.0001) | {"none": 0.0, "lua": 5e-5, "rust": 1e-3, "python": 4e-3}
    samples = {way: [gateway.Sample(1000, 2e-4 + cost, 3e-4 + cost)] * 3 for way, cost in costs.items()}
    lines = list(gateway.section(samples, 3.2))
    text = "\n".join(lines)
    assert "| a plugin in Lua | 1,000 | 1.00 | 250 µs | 50 µs | 350 µs | 50 µs |" in text
    assert "Lua costs least, filters more, and plugin servers most. That is the case here" in text
    assert "a filter costs 2.00 to 2.00 times as much as the plugin in Lua" in text.replace("\n", " ")
    assert "A plugin server costs at least 1 times as much as a filter" in text
    before = "# Title\n\n## Inside a gateway\n\nold\n\n## Further\n\nkept\n"
    after = inserted(before, lines)
    assert (after.count("## Inside"), "old" in after, after.endswith("## Further\n\nkept\n")) == (1, False, True)


@pytest.mark.parametrize("language", ["rust", "python", "javascript"])
def test_a_plugin_server_is_named_as_kong_names_it(tmp_path, language):
    if language == "javascript" and not which("npm"):
        pytest.skip("Kong's PDK for JavaScript is installed with npm")
    settings = gateway.plugin_server(tmp_path, language)
    assert settings["KONG_PLUGINSERVER_NAMES"] == language
    [server] = query(Environment.read(settings))
    assert [plugin["Name"] for plugin in server.plugins] == [gateway.NAME]

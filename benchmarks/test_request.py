"""One request through header filters: what it costs, and how the cost grows with the chain."""

from __future__ import annotations

import pytest

from benchmarks.exchange import chain, one_request
from proxywasm_host import Host


def test_prototype(benchmark):
    """The least that it costs over ctypes: no checks, no contexts, no limits."""
    from benchmarks import prototype  # noqa: PLC0415 - opens an engine of its own

    benchmark(prototype.one_request, 2)


@pytest.mark.parametrize("filters", [1, 2, 4, 8, 16])
def test_chain(benchmark, filters):
    with Host() as host:
        plugins = chain(host, filters)
        request, response = benchmark(one_request, host, plugins)
    assert request.count((b"x-wasm", b"hello")) == filters
    assert response[-1] == (b"server", b"hello")


def test_load(benchmark):
    """A plugin that is compiled already: instantiate, start, configure, close."""
    with Host() as host:
        [code] = [plugin.config.vm.code for plugin in chain(host, 1)]

        def load() -> None:
            host.load_plugin(code, vm_id="another").close()

        benchmark(load)

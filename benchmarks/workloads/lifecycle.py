"""The steps from a module's bytes to a running plugin."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from benchmarks.cache import CACHE
from benchmarks.headers import header_filter
from benchmarks.timing import InProcess
from benchmarks.workloads.workload import Silent, Workload
from proxywasm_host import Host, Services, open_engine
from proxywasm_host.engine.cache import ModuleCache, default_directory
from tests.support import code


@cache
def largest() -> bytes:
    """A production filter in Go of 6.5 MB: Higress's transformer."""
    spec = importlib.util.find_spec("gpustack_higress_plugins")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "plugins/transformer/2.0.0/plugin.wasm").read_bytes()


@dataclass(frozen=True)
class Sample:
    """A filter to load."""

    code: Callable[[], bytes]
    configuration: str = ""


SAMPLES = {
    "1 kB": Sample(header_filter),
    "Rust, 0.1 MB": Sample(lambda: code("rust/headers")),
    "Go, 6.5 MB": Sample(largest, '{"reqRules": [{"operate": "remove", "headers": [{"key": "x-remove-me"}]}]}'),
}


@contextmanager
def compile(engine: str, sample: Sample) -> Iterator[InProcess]:
    ready, filter = open_engine(engine), sample.code()
    assert any(export.name == "proxy_on_request_headers" for export in ready.compile(filter).exports)
    yield InProcess(lambda: ready.compile(filter), others=True)


@contextmanager
def load_from_cache(engine: str, sample: Sample) -> Iterator[InProcess]:
    """Read the compiled module from the disk, through a cache with nothing in memory."""
    ready, filter = open_engine(engine), sample.code()
    folder = default_directory() or CACHE / "modules"
    ModuleCache(folder).load(ready, filter)
    expected = "disk" if ready.capabilities.serialise else "compiled"
    assert ModuleCache(folder).fetch(ready, filter).origin == expected
    yield InProcess(lambda: ModuleCache(folder).load(ready, filter), others=True)


@contextmanager
def instantiate(engine: str, sample: Sample) -> Iterator[InProcess]:
    """Load a plugin from compiled code in memory, start, configure and close it."""
    filter = sample.code()
    with Host(engine, services=Services(log=Silent())) as host:

        def load() -> None:
            host.load_plugin(filter, name="filter", configuration=sample.configuration).close()

        load()
        assert host.plugins == []
        yield InProcess(load, others=True)


WORKLOADS = tuple(
    Workload("load", f"{name}: {size}", what, partial(open, sample=sample))
    for name, what, open in (
        ("compile", "bytes to machine code", compile),
        ("load from the cache", "compiled code read from the disk and checked", load_from_cache),
        ("instantiate", "started, configured, closed; compiled code is in memory", instantiate),
    )
    for size, sample in SAMPLES.items()
)

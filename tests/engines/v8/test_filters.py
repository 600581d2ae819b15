"""Every filter of ours does the same on V8 as on Wasmtime: what it sends, asks, logs, and how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxywasm_engine_v8 import V8Engine
from proxywasm_engine_wasmtime import WasmtimeEngine
from proxywasm_host import Host, Services
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.services import ManualClock
from tests.support import FILTERS, REQUEST, RESPONSE, Lines, Trace

FILES = sorted(path.relative_to(FILTERS) for path in FILTERS.rglob("*.wasm"))


def transcript(engine: Engine, path: Path) -> list[object]:
    """What is seen of a filter that one request goes through."""
    log, trace = Lines(), Trace()
    services = Services(log=log, clock=ManualClock(), clusters={"upstream"}, random=bytes)
    seen: list[object] = []
    with Host(engine, services=services, listener=trace) as host:
        try:
            code = (FILTERS / path).read_bytes()
            plugin = host.load_plugin(code, name="filter", configuration="", unknown_imports="stub")
            stream = host.http_stream([plugin])
            seen += [
                stream.request_headers(REQUEST, False),
                stream.request_body(b"hello", True),
                stream.response_headers(RESPONSE, False),
                stream.response_body(b"world", True),
            ]
            stream.close()
        except Exception as error:  # how it fails is compared as well
            seen += [type(error), str(error)]
    return [*map(str, seen), *log.messages, *trace.hostcalls, *trace.events]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_it_does_the_same_as_on_wasmtime(path: Path) -> None:
    ours, theirs = transcript(V8Engine(), path), transcript(WasmtimeEngine(), path)
    assert ours == theirs
    assert len(ours) > 4

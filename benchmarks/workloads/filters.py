"""Whole requests through real filters: those of ``tests/filters``, built with common SDKs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.headers import EXAMPLES, REQUEST, RESPONSE, packed
from benchmarks.timing import InProcess
from benchmarks.workloads.workload import Silent, Workload
from proxywasm_host import Host, Services
from proxywasm_host.runtime.effects import RequestBody, RequestHeaders, ResponseHeaders
from tests.support import code

DOCUMENT = {"items": [{"id": i, "name": f"item number {i}", "tags": ["a", "b"], "price": i / 4} for i in range(12)]}


@contextmanager
def headers(engine: str, filter: str) -> Iterator[InProcess]:
    with Host(engine, services=Services(log=Silent())) as host:
        module = packed(EXAMPLES / "headers.py") if filter == PYTHON else code(filter)
        plugins = [host.load_plugin(module, name="headers")]

        def request() -> tuple[object, object]:
            stream = host.http_stream(plugins)
            [request] = stream.request_headers(REQUEST, True)
            [response] = stream.response_headers(RESPONSE, True)
            stream.close()
            return request, response

        upstream, client = request()
        assert isinstance(upstream, RequestHeaders)
        assert isinstance(client, ResponseHeaders)
        assert (b"x-wasm", b"hello") in upstream.headers
        assert (b"server", b"proxy-wasm") in client.headers
        yield InProcess(request)


@contextmanager
def rewrite(engine: str, filter: str) -> Iterator[InProcess]:
    """Add a member to a JSON document of a kilobyte."""
    body = json.dumps(DOCUMENT).encode()
    with Host(engine, services=Services(log=Silent())) as host:
        plugins = [host.load_plugin(code(filter), name="json")]

        def request() -> list[object]:
            stream = host.http_stream(plugins)
            stream.request_headers(REQUEST, False)
            effects = list(stream.request_body(body, True))
            stream.close()
            return effects

        [rewritten] = (effect for effect in request() if isinstance(effect, RequestBody))
        assert json.loads(rewritten.data) == {**DOCUMENT, "seen": True}
        yield InProcess(request)


PYTHON = "sdk/examples/headers.py"
SDKS = {"Rust": "rust/headers", "Go": "go/headers", "AssemblyScript": "assemblyscript/headers_0_2_1", "Python": PYTHON}
REWRITERS = {"Rust": "rust/json", "Go": "go/body"}

WORKLOADS = (
    *(
        Workload(
            "request",
            f"headers, with an SDK: {sdk}",
            f"`{filter}`" if filter == PYTHON else f"`tests/filters/{filter}`",
            partial(headers, filter=filter),
        )
        for sdk, filter in SDKS.items()
    ),
    *(
        Workload("body", f"JSON rewritten in {sdk}", f"1 kB, `tests/filters/{filter}`", partial(rewrite, filter=filter))
        for sdk, filter in REWRITERS.items()
    ),
)

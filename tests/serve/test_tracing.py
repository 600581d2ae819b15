"""``tracing: true``: spans of what requests meet, where the environment has set up OpenTelemetry."""

from __future__ import annotations

import json
import time

from tests.serve.conftest import HEADERS

SET_UP = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
file = open({file!r}, "a", buffering=1)
exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\\n")
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_spans_of_a_request_belong_to_its_trace(serve, origin, tmp_path, monkeypatch):
    file = tmp_path / "spans"
    (tmp_path / "sitecustomize.py").write_text(SET_UP.format(file=str(file)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    served = serve(settings={"filters": [HEADERS], "tracing": True})
    assert served.get("/a", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}).status_code == 200
    assert served.get("/b").status_code == 200

    def spans() -> list[dict]:
        return [json.loads(line) for line in file.read_text().splitlines()]

    until = time.monotonic() + 10
    while sum(span["name"] == "proxywasm stream" for span in spans()) < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    first, second = (span for span in spans() if span["name"] == "proxywasm stream")
    assert (first["context"]["trace_id"], first["parent_id"]) == (f"0x{TRACE}", "0xb7ad6b7169203331")
    assert (first["attributes"]["url.path"], first["attributes"]["http.response.status_code"]) == ("/a", 200)
    assert second["parent_id"] is None
    upstream = [request["traceparent"] for request in origin.requests]
    assert [sent[:52] for sent in upstream] == [
        f"00-{span['context']['trace_id'][2:]}-{span['context']['span_id'][2:]}" for span in (first, second)
    ]
    assert {"headers on_request_headers", "headers on_response_headers"} <= {span["name"] for span in spans()}

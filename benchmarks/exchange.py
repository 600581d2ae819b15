"""What the benchmarks send: one request through a chain of header filters, by the public API."""

from __future__ import annotations

from pathlib import Path

import wasmtime

from proxywasm_host import Host, Plugin
from proxywasm_host.abi.pairs import HeaderList

REQUEST: HeaderList = [
    (b":path", b"/"),
    (b":method", b"GET"),
    (b":authority", b"localhost"),
    (b"user-agent", b"curl/8"),
    (b"accept", b"*/*"),
]
RESPONSE: HeaderList = [(b":status", b"200"), (b"server", b"x"), (b"content-type", b"text/plain")]


def header_filter() -> bytes:
    """The filter of ``header_filter.wat``: 4 hostcalls on the request headers, 3 on the response headers."""
    text = Path(__file__).with_name("header_filter.wat").read_text(encoding="ascii")
    return bytes(wasmtime.wat2wasm(text))


def chain(host: Host, filters: int) -> list[Plugin]:
    """So many header filters, each in a VM of its own."""
    code = header_filter()
    return [host.load_plugin(code, name=f"f{i}", vm_id=f"{i}") for i in range(filters)]


def one_request(host: Host, plugins: list[Plugin]) -> tuple[HeaderList, HeaderList]:
    """Send it through; the headers that upstream and client get."""
    stream = host.http_stream(plugins)
    request = stream.request_headers(REQUEST, True)
    response = stream.response_headers(RESPONSE, True)
    stream.close()
    return request[0].headers, response[0].headers  # type: ignore[union-attr]

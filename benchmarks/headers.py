"""The work that every way of extending a gateway does: one request and its response.

On the request, it reads two headers, adds one, and removes an absent one; on the response, it reads one, adds one and
replaces one. `header_filter.wat` does that as a filter, `header_filter.py` as one in Python, `contenders/plugin.lua` as
a Kong plugin, and so on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

HeaderList = list[tuple[bytes, bytes]]

HERE = Path(__file__).parent

REQUEST: HeaderList = [
    (b":path", b"/"),
    (b":method", b"GET"),
    (b":authority", b"localhost"),
    (b"user-agent", b"curl/8"),
    (b"accept", b"*/*"),
]
RESPONSE: HeaderList = [(b":status", b"200"), (b"server", b"x"), (b"content-type", b"text/plain")]

CHANGED_REQUEST: HeaderList = [*REQUEST, (b"x-wasm", b"hello")]
CHANGED_RESPONSE: HeaderList = [
    (b":status", b"200"),
    (b"server", b"hello"),
    (b"content-type", b"text/plain"),
    (b"x-wasm", b"hello"),
]


def check(result: tuple[HeaderList, HeaderList]) -> None:
    """Whether the work was done, regardless of the order of the headers."""
    request, response = result
    assert sorted(request) == sorted(CHANGED_REQUEST), request
    assert sorted(response) == sorted(CHANGED_RESPONSE), response


def header_filter() -> bytes:
    """The filter of ``header_filter.wat``: 4 hostcalls on the request headers, 3 on the response headers."""
    import wasmtime  # noqa: PLC0415 - another engine's start is measured without it

    return bytes(wasmtime.wat2wasm((HERE / "header_filter.wat").read_text(encoding="ascii")))


EXAMPLES = HERE.parent / "sdk" / "examples"
RULES = {
    "request": {"set": {"x-a": "1", "x-b": "2"}, "remove": ["x-c", "x-d"]},
    "response": {"set": {"server": "s"}},
    "deny": ["/no", "/admin", "/private"],
}
"""The configuration of ``sdk/examples/header_rules.py`` in the measurements."""


@cache
def packed(path: Path) -> bytes:
    """The packed module of a filter in Python."""
    import proxywasm_pack  # noqa: PLC0415 - starts of the host are measured without it

    return proxywasm_pack.pack(path)

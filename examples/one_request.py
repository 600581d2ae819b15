"""One whole request through a chain of two filters: what upstream gets, what the client gets, and the log.

python examples/one_request.py
"""

from pathlib import Path

from proxywasm_host import Host
from proxywasm_host.testing import Message, exchange

FILTERS = Path(__file__).parent.parent / "tests" / "filters"

with Host() as host:
    chain = [
        host.load_plugin(FILTERS / "rust/auth.wasm", configuration="secret"),
        host.load_plugin(FILTERS / "go/headers.wasm", configuration="from Go"),
    ]
    for token in ("secret", "guessed"):
        request = Message.request("GET", "http://example.com/x", [("authorization", f"Bearer {token}")])
        response = Message.response(200, [("server", "upstream")], [b"Hello."])
        result = exchange(host, chain, request, response)
        upstream, client = result.upstream_request, result.client_response
        print(f"{token}: upstream gets", dict(upstream.headers).get(b"x-wasm") if upstream else "nothing")
        print(f"{token}: the client gets", client.status if client else "nothing", client.body if client else b"")
        for line in result.logs:
            print(f"    {line.plugin}: {line.message}")

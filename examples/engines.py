"""Filters on different engines, side by side in one chain.

python examples/engines.py
"""

from pathlib import Path

from proxywasm_host import Host, list_engines
from proxywasm_host.testing import Message, exchange

FILTERS = Path(__file__).parent.parent / "tests" / "filters"
usable = [engine.name for engine in list_engines() if engine.usable]
names = ["go/headers", "rust/headers", "assemblyscript/headers_0_2_0"]

with Host() as host:
    chain = []
    for number, name in enumerate(names):
        engine = usable[number % len(usable)]
        print(f"filter {number + 1} runs on the engine {engine}")
        chain.append(host.load_plugin(FILTERS / f"{name}.wasm", configuration=name, engine=engine))
    result = exchange(host, chain, Message.request("GET", "http://example.com/"))
    assert result.upstream_request is not None
    print([value.decode() for name, value in result.upstream_request.headers if name == b"x-wasm"])

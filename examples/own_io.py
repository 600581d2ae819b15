"""A host in a program with its own I/O, which performs all effects itself, including callouts.

python examples/own_io.py
"""

from pathlib import Path

from proxywasm_host import Host, Services
from proxywasm_host.effects import (
    Effect,
    HttpCall,
    HttpCallReply,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)

AUTH = Path(__file__).parent.parent / "tests" / "filters" / "rust" / "auth.wasm"


def perform(host: Host, effects: list[Effect]) -> None:
    """Perform effects; their results may cause more."""
    for effect in effects:
        if isinstance(effect, HttpCall):
            token = dict(effect.headers).get(b"authorization", b"")
            print(f"asking {effect.cluster} about {token.decode()}")
            status = b"200" if token == b"Bearer good" else b"403"
            perform(host, host.deliver(effect, HttpCallReply([(b":status", status)])))
        elif isinstance(effect, RequestHeaders):
            print("to upstream:", dict(effect.headers)[b":path"].decode())
            response = [(b":status", b"200"), (b"content-type", b"text/plain")]
            perform(host, effect.stream.response_headers(response))
            perform(host, effect.stream.response_body(b"Hello.", end_stream=True))
        elif isinstance(effect, ResponseHeaders):
            print("to the client:", dict(effect.headers)[b":status"].decode())
        elif isinstance(effect, ResponseBody):
            print("to the client:", effect.data.decode().strip())


with Host(services=Services(clusters={"accounts"})) as host:
    plugin = host.load_plugin(AUTH, configuration="callout:accounts")
    for token in (b"Bearer good", b"Bearer bad"):
        pseudo = [(b":authority", b"example.com"), (b":path", b"/x"), (b":method", b"GET"), (b":scheme", b"http")]
        with host.http_stream([plugin]) as stream:
            perform(host, stream.request_headers([*pseudo, (b"authorization", token)], end_stream=True))

"""The table of tests/framing.py, as the exchange has it."""

from __future__ import annotations

import pytest

from proxywasm_host import Host
from proxywasm_host.driver.dispatch import Dispatcher
from proxywasm_host.integrations.exchange import Exchange
from tests.framing import CASES, headers_of
from tests.support import code


def pairs(framing: str) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers_of(framing)]


def message(first, queue) -> tuple[object, str, str]:
    """A message as the table has it, of a head and what is behind it in the queue."""
    head = queue.popleft()
    length = dict(head.headers).get(b"content-length")
    end = "nothing" if head.end_stream else "chunked"
    return (
        first(head),
        f"length {length.decode()}" if length is not None else end,
        b"".join(part.data for part in queue).decode(),
    )


def feed(event, body: str) -> None:
    *parts, last = body.encode().split(b"|")
    for part in parts:
        event(part, False)
    event(last, True)


@pytest.mark.parametrize("name", CASES)
def test_a_case(engine, name):
    case = CASES[name]
    with Host(engine) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=case.script)
        exchange = Exchange(Dispatcher(host), host.http_stream([plugin]))
        method, framing, body = case.asked
        exchange.begin(method.encode(), b"/", b"http", [(b"host", b"h"), *pairs(framing)])
        feed(exchange.request_body, body)
        asked = message(lambda head: head.method.decode(), exchange.to_upstream) if exchange.to_upstream else None
        assert asked == case.upstream
        status, framing, body = case.answers
        exchange.response(status, pairs(framing))
        feed(exchange.response_body, body)
        names = [name.decode() for name, _ in exchange.to_client[0].headers]
        assert not {*case.absent, "transfer-encoding", "connection"}.intersection(names)
        assert message(lambda head: head.status, exchange.to_client) == case.client
        exchange.close()
